"""The process that speaks with Ray: hands trials over as tasks, counts what is lost, and fetches what was made."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from emb.bench import describe_machine
from emb.errors import EmbError, RuntimeFailure, SpecError
from emb.pipeline import _ray_task
from emb.pipeline.build import Order, in_store
from emb.pipeline.memory_needs import memory_needs
from emb.pipeline.ray_workers import Share, environment_of_trials, unreachable
from emb.pipeline.workers import died_twice
from emb.store import Store, cache_directory, explained

_OBJECT_STORE_BYTES = 100 * 2**20  # of a Ray of our own: nothing but orders and errors goes through it
_POLL_S = 0.5
_DEATHS, _LOSSES = 2, 5
_WITHOUT_NODES_S = 60.0
_ASKED_S = 60.0


def serve(connection: Connection, log: Path, address: str | None, share: Share) -> None:
    """Connect, say so, and do what is asked for until the caller ends this process."""
    os.setsid()  # a Ctrl-C in the terminal is the caller's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_caller, daemon=True).start()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    try:
        with _connected(address), _token() as token:
            connection.send({"connected": True})
            cluster = _Cluster(connection, share, token)
            connection.send({"nodes": len(cluster.nodes()), "processes": cluster.processes()})
            while True:
                wanted = connection.recv()
                cluster.run(wanted["orders"], processes=wanted["processes"])
                connection.send({"done": True})
    except EmbError as error:
        connection.send({"error": error})
    except EOFError:
        pass


def _end_with_caller() -> None:
    caller = parent_process()
    assert caller is not None
    wait([caller.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    # Before Ray is imported. It would report its use to its makers, and warn of what it will do otherwise one day.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None and "RAY_AUTH_MODE" not in os.environ:
        # Only this sweep may use its Ray. Of itself Ray would leave such a token in the user's home directory.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex + uuid.uuid4().hex}
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    folder = None
    try:
        if address is None:
            # Short: the names of sockets must not be long.
            folder = tempfile.mkdtemp(prefix="emb-ray-", dir="/tmp" if os.access("/tmp", os.W_OK) else None)
            quiet |= {
                "include_dashboard": False,
                "num_cpus": describe_machine().cores,
                "_temp_dir": folder,
                "object_store_memory": _OBJECT_STORE_BYTES,
            }
        try:
            ray.init(address=address or "local", **quiet)
        except Exception as error:  # Ray raises whatever comes: ConnectionError, RuntimeError, ValueError, its own
            words = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise unreachable(address, why="\n       ".join(words[:4]) or type(error).__name__) from error
        yield
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _said(error: Exception) -> str:
    """The line of Ray's error that says what happened: the last one of a traceback, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (named or lines)[-1 if named else 0]


@contextmanager
def _token() -> Iterator[str]:
    """A file in the store whose name nobody can guess: whoever sees it sees this store."""
    root = Store().root
    token = f"work/sweep-{uuid.uuid4().hex}"
    with explained("write the cache", root):
        (root / token).parent.mkdir(parents=True, exist_ok=True)
        (root / token).touch()
    try:
        yield token
    finally:
        (root / token).unlink(missing_ok=True)


@dataclass(slots=True)
class _Round:
    """The orders of one call. flying: reference of a task -> name.  needs: bytes of memory that each asks for."""

    orders: Mapping[str, Order]
    waiting: deque[str]
    flying: dict[Any, str]
    needs: dict[str, int]
    deaths: Counter[str]
    losses: Counter[str]


class _Cluster:
    """The cluster that this process is connected to. Raises EmbError if it is not fit."""

    def __init__(self, connection: Connection, share: Share, token: str) -> None:
        self._connection, self._share = connection, share
        self._home = _ray_task.Home(
            host=socket.gethostname(),
            cache=str(cache_directory().absolute()),
            token=token,
            directory=str(Path.cwd()),
            files={},
            environment=environment_of_trials(share),
            data=os.environ.get("EMB_DATA_DIR") or None,
        )
        self._require_share()
        self._all_share_store = self._require_equals()
        self._offered: dict[str, Any] = {}

    @property
    def _cpus(self) -> int:
        return self._share.cpus or 1

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that live and could take a trial, were they idle."""
        import ray

        return [node for node in ray.nodes() if node["Alive"] and self._trials_on(node) > 0]

    def processes(self) -> int:
        """Trials that the nodes have CPUs and GPUs for."""
        return sum(self._trials_on(node) for node in self.nodes())

    def _trials_on(self, node: Mapping[str, Any]) -> int:
        resources = node["Resources"]
        if resources.get("memory", 0) < (self._share.memory_bytes or 0):
            return 0
        gpus = [resources.get("GPU", 0) // self._share.gpus] if self._share.gpus else []
        return int(min(resources.get("CPU", 0) // self._cpus, *gpus, sys.maxsize))

    def _require_share(self) -> None:
        if not self.nodes():
            share = self._share
            memory = f" and {share.memory_bytes / 2**30:g} GiB of memory" if share.memory_bytes else ""
            raise SpecError(
                f"no node of the Ray cluster has {self._cpus} CPUs, {share.gpus:g} GPUs{memory} for a trial",
                why="a trial runs on one node",
                fix="ask for less (--trial-cpus, --trial-gpus, --trial-memory), or add a node that has it",
            )

    def _require_equals(self) -> bool:
        """Whether all nodes see the store. Raises SpecError for one on which the same trial would be another."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = []
        for node in self.nodes():
            there = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            task = ray.remote(num_cpus=0, max_retries=0)(_ray_task.describe).options(scheduling_strategy=there)
            asked.append((node["NodeManagerHostname"], task.remote(self._home)))
        ours, shared = _ray_task.facts(), []
        for host, reference in asked:
            try:
                found = ray.get(reference, timeout=_ASKED_S)
            except ray.exceptions.RayError as error:
                raise SpecError(
                    f"the node {host} of the Ray cluster cannot run emb",
                    why=_said(error),
                    fix="install there what is installed here: the same emb, in the Python that Ray runs in",
                ) from error
            if found["facts"] != ours:
                theirs = found["facts"]
                differing = [name for name in ours if theirs.get(name) != ours[name]]
                raise SpecError(
                    f"the node {host} of the Ray cluster would make other trials than this machine",
                    why=", ".join(f"{name} is {theirs.get(name)} there and {ours[name]} here" for name in differing),
                    fix="install there what is installed here, and restart Ray on it",
                )
            shared.append(found["shared"])
        return all(shared)

    def run(self, orders: Mapping[str, Order], *, processes: int) -> None:
        """Until all orders have ended; says of each how it goes on and, once, how it ended."""
        import ray

        needs = memory_needs(orders) if self._share.memory_bytes is None else {}
        most = max(int(node["Resources"].get("memory", 0)) for node in self.nodes())
        asked = {name: min(needs.get(name, self._share.memory_bytes or 0), most) for name in orders}
        now = _Round(orders, deque(orders), {}, asked, Counter(), Counter())
        relay = ray.remote(num_cpus=0, max_restarts=-1)(_ray_task.Relay).remote()
        told = relay.take.remote()
        seen = time.monotonic()
        try:
            while now.waiting or now.flying:
                while now.waiting and len(now.flying) < processes:
                    self._begin(now, now.waiting.popleft(), relay)
                ready, _ = ray.wait(list(now.flying), num_returns=1, timeout=_POLL_S) if now.flying else ([], [])
                told = self._pass_on(told, relay, now)
                for reference in ready:
                    self._end(now, reference, most)
                if ready or self.nodes():
                    seen = time.monotonic()
                elif time.monotonic() - seen > _WITHOUT_NODES_S:
                    raise RuntimeFailure(
                        "no node of the Ray cluster is left for the trials",
                        why=f"for {_WITHOUT_NODES_S:.0f} s there was none that could take one",
                        fix="start nodes, and run the sweep again: what is done is kept",
                    )
        finally:
            for reference in now.flying:
                with suppress(Exception):  # the cluster may be gone
                    ray.cancel(reference, force=True)
            with suppress(Exception):
                ray.kill(relay)

    def _begin(self, now: _Round, name: str, relay: Any) -> None:
        import ray

        order = now.orders[name]
        try:
            keys, complete = in_store(order)
        except EmbError as error:
            self._say_end(name, error)
            return
        if complete:
            self._say_end(name, None)
            return
        if not self._all_share_store:
            for key in keys:
                if key not in self._offered:
                    self._offered[key] = ray.put(Store().pack(key))
        offers = {} if self._all_share_store else {key: self._offered[key] for key in keys}
        task = ray.remote(num_cpus=self._cpus, num_gpus=self._share.gpus, memory=now.needs[name], max_retries=0)
        reference = task(_ray_task.build_on_node).remote(name, order, self._home_of(order), offers, relay)
        now.flying[reference] = name

    def _home_of(self, order: Order) -> _ray_task.Home:
        """With the files that the order names; a data folder or a model must lie on the node itself."""
        named = (str(order.recipe), order.target or "")
        return replace(self._home, files={path: Path(path).read_bytes() for path in named if path.endswith(".toml")})

    def _pass_on(self, told: Any, relay: Any, now: _Round) -> Any:
        """Says what trials have told; the reference of what they tell next."""
        import ray

        if not ray.wait([told], timeout=0)[0]:
            return told
        with suppress(ray.exceptions.RayError):  # its node was lost: Ray starts it elsewhere
            for name, stage, share in ray.get(told):
                # Not of one that has ended meanwhile.
                if name in now.flying.values():
                    self._connection.send({"name": name, "stage": stage, "share": share})
        return relay.take.remote()

    def _end(self, now: _Round, reference: Any, most: int) -> None:
        import ray

        name = now.flying.pop(reference)
        try:
            done: _ray_task.Done = ray.get(reference)
            for packed in done.packed.values():
                Store().put(ray.get(packed))
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
            now.deaths[name] += 1
            # Which leaves it fewer neighbours; one of them may have been what took the memory.
            now.needs[name] = min(2 * now.needs[name], most)
            self._again(now, name, None if now.deaths[name] < _DEATHS else died_twice(name))
        except (ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError) as error:
            now.losses[name] += 1
            lost = RuntimeFailure(
                f"{name} was lost {_LOSSES} times on the Ray cluster",
                why=_said(error),
                fix="see that its nodes keep running and reach each other and this machine, and run the sweep again: "
                "what is done is kept",
            )
            self._again(now, name, None if now.losses[name] < _LOSSES else lost)
        except ray.exceptions.RayError as error:
            self._say_end(
                name, RuntimeFailure(f"{name} failed on the Ray cluster", why=_said(error), fix="report this")
            )
        else:
            self._say_end(name, done.error or self._incomplete(name, now.orders[name], done.host))

    def _again(self, now: _Round, name: str, error: EmbError | None) -> None:
        if error is None:
            now.waiting.append(name)
        else:
            self._say_end(name, error)

    def _incomplete(self, name: str, order: Order, host: str) -> EmbError | None:
        """Whether the store lacks what the node says it made: its keys are others then."""
        if in_store(order)[1]:
            return None
        return RuntimeFailure(
            f"what {host} made for {name} is not what is needed here",
            why="its data set or its recipe is another one",
            fix="see that EMB_DATA_DIR there holds the same files as here",
        )

    def _say_end(self, name: str, error: EmbError | None) -> None:
        self._connection.send({"name": name, "ended": error})
