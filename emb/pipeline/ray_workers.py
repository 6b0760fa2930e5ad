"""Makes orders ready on a Ray cluster, as workers.py does on this machine. Decides nothing of how Ray is used.

Ray prints what it likes, handles signals its own way and ends its process when the cluster does not answer. All that
happens in a process of its own (_ray_driver.py); here stands what its caller sees of it.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from emb.errors import EmbError, RuntimeFailure, SpecError
from emb.pipeline.build import Order
from emb.pipeline.workers import TrialListener
from emb.pipeline.workers import make_ready as make_ready_here

_PROBE_S = 5.0
_CONNECT_S = 30.0
_START_S = 120.0  # a Ray on this machine; 3 to 10 s were seen
_END_S = 20.0
_TAIL_BYTES, _TAIL_LINES = 20_000, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What Ray gives one trial. cpus: None: one, and TensorFlow takes the threads it likes; else it takes so many.

    memory_bytes: None: what the trial's network is reckoned to take.
    """

    cpus: int | None = None
    gpus: float = 0.0
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RayWorkers:
    """A cluster that is ready to work.

    nodes: that can take a trial.  processes: trials that they have CPUs and GPUs for.
    """

    nodes: int
    processes: int
    _connection: Connection
    _log: Path

    def make_ready(
        self, orders: Mapping[str, Order], *, processes: int, alone: Sequence[str], listener: TrialListener
    ) -> dict[str, EmbError]:
        """`workers.make_ready` on the cluster.

        alone: made ready on this machine afterwards, as the times that they take are this machine's.
        An order whose process dies is tried once more; one whose node is lost, as often as that is no fault of its own.
        Raises RuntimeFailure if the cluster is lost; what is done by then is kept in the store.
        """
        together = {name: order for name, order in orders.items() if name not in alone}
        failures: dict[str, EmbError] = {}
        if together:
            self._connection.send({"orders": together, "processes": processes})
            while "done" not in (message := _heard(self._connection, self._log)):
                if "stage" in message:
                    listener.goes_on(message["name"], message["stage"], message["share"])
                    continue
                if message["ended"] is not None:
                    failures[message["name"]] = message["ended"]
                listener.has_ended(message["name"], message["ended"])
        if alone:
            timed = {name: orders[name] for name in alone}
            failures |= make_ready_here(timed, processes=1, alone=alone, listener=listener)
        return failures


@contextmanager
def on_ray(address: str | None, *, share: Share) -> Iterator[RayWorkers]:
    """A connection to the cluster at `address`, or a Ray on this machine alone that ends with the block.

    address: "auto" (the one that runs on this machine), "host:port" of a cluster that this machine belongs to, or
    "ray://host:port" of any other.
    Raises SpecError, before anything is begun, if there is no Ray, no such cluster, or no node with that share; if a
    node has another emb or other packages than this machine.
    """
    require_ray()
    if address is not None:
        _probe(address)
    from emb.pipeline._ray_driver import serve

    with tempfile.TemporaryDirectory(prefix="emb-ray-") as folder:
        log = Path(folder) / "log"
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, log, address, share))
        process.start()
        theirs.close()
        try:
            _await_connection(ours, log, address, process)
            ready = _heard(ours, log)
            yield RayWorkers(nodes=ready["nodes"], processes=ready["processes"], _connection=ours, _log=log)
        finally:
            process.terminate()  # it cancels what is under way, and ends the Ray that it started
            process.join(_END_S)
            process.kill()
            process.join()
            ours.close()


def _await_connection(connection: Connection, log: Path, address: str | None, process: BaseProcess) -> None:
    limit_s = _START_S if address is None else _CONNECT_S
    if not connection.poll(limit_s):
        if address is not None:
            process.kill()  # it has begun nothing, and hears nothing while it waits
        raise unreachable(address, why=f"it did not answer within {limit_s:.0f} s")
    try:
        _heard(connection, log)
    except ConnectionLost as lost:
        raise unreachable(address, why=lost.why) from None


class ConnectionLost(RuntimeFailure):
    """The process that spoke with the cluster has ended."""


def require_ray() -> None:
    """Raises SpecError if Ray is not installed, or cannot be."""
    if os.name != "posix":
        raise SpecError(
            "--engine ray needs Linux or macOS", why="Ray has no clusters elsewhere", fix="leave --engine ray out"
        )
    if find_spec("ray") is None:
        raise SpecError(
            "Ray is not installed",
            fix="pip install 'emb[ray]', or leave --engine ray out: this machine's processes do it",
        )


def _heard(connection: Connection, log: Path) -> dict[str, Any]:
    try:
        message: dict[str, Any] = connection.recv()
    except (EOFError, ConnectionResetError):
        raise ConnectionLost(
            "the connection to the Ray cluster broke off",
            why=_last_words(log),
            fix="see that the cluster's head still runs, and run the sweep again: what is done is kept",
        ) from None
    if "error" in message:
        raise message["error"]
    return message


def _last_words(log: Path) -> str:
    try:
        text = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n       ".join(["Ray's last words:", *lines[-_TAIL_LINES:]]) if lines else "Ray left no last words"


def _probe(address: str) -> None:
    """Whether something listens there at all: Ray itself waits for long, and then ends its process."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise SpecError(
            f"--address {address!r} is no address of a Ray cluster",
            fix="give auto, HOST:PORT (6379 unless it was started otherwise) or ray://HOST:PORT (10001)",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
    except OSError as error:
        raise unreachable(address, why=(error.strerror or str(error)).lower()) from error


def unreachable(address: str | None, *, why: str) -> SpecError:
    if address is None:
        return SpecError(
            "Ray does not start on this machine", why=why, fix="leave --engine ray out: this machine's processes do it"
        )
    return SpecError(
        f"there is no Ray cluster to reach at {address}",
        why=why,
        fix="start one (ray start --head), or check the address and the firewall; if it wants a token, set "
        "RAY_AUTH_MODE=token",
    )


def environment_of_trials(share: Share) -> dict[str, str | None]:
    """What decides a training's bits as it is here, whatever the node's environment says. None: not set."""
    kept = ("KERAS_BACKEND", "TF_DETERMINISTIC_OPS", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    environment: dict[str, str | None] = {name: os.environ.get(name) for name in kept}
    if share.cpus is not None:
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), str(share.cpus))
    if not share.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ""  # no trial takes what it did not ask for
    return environment
