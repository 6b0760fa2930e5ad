"""Makes orders ready in several processes, each order once, and outlives a process that dies. Takes no times."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Protocol, Self

from emb.errors import EmbError, RuntimeFailure
from emb.pipeline.build import Order, build_untimed
from emb.pipeline.stage import Silence

if TYPE_CHECKING:
    from emb.train import Progress


class TrialListener(Protocol):
    """Hears how each order goes on, by its name. share: of its training, None where nothing is trained."""

    def goes_on(self, name: str, stage: str, share: float | None) -> None: ...
    def has_ended(self, name: str, error: EmbError | None) -> None: ...


@dataclass(slots=True)
class _Worker:
    """A process, and the name of the order that it is at."""

    process: BaseProcess
    connection: Connection
    name: str


class Crew:
    """Processes that stay for the next orders, as each takes seconds to import what it needs; a context."""

    def __init__(self) -> None:
        self.idle: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.idle:
            worker.connection.close()
            worker.process.join()


def make_ready(
    orders: Mapping[str, Order],
    *,
    processes: int,
    alone: Sequence[str],
    listener: TrialListener,
    crew: Crew | None = None,
) -> dict[str, EmbError]:
    """`build_untimed` of every order: name -> what went wrong, for those where something did.

    alone: names that must not run beside others. They come last, one at a time.
    crew: whose processes are taken and left there; without one they end here.
    An order whose process dies is tried once more, by itself; it may have been the neighbour that took the memory.
    """
    if crew is None:
        with Crew() as own:
            return make_ready(orders, processes=processes, alone=alone, listener=listener, crew=own)
    failures: dict[str, EmbError] = {}
    together = [name for name in orders if name not in alone]
    died = _run(orders, together, processes, failures, listener, crew)
    died += _run(orders, alone, 1, failures, listener, crew)
    for name in _run(orders, died, 1, failures, listener, crew):
        failures[name] = RuntimeFailure(
            f"the process of {name} died twice",
            why="it was ended from outside, or memory ran out",
            fix="run the sweep again: what is done is kept; if memory ran out, with a smaller train.batch_size",
        )
        listener.has_ended(name, failures[name])
    return failures


def _run(
    orders: Mapping[str, Order],
    names: Sequence[str],
    processes: int,
    failures: dict[str, EmbError],
    listener: TrialListener,
    crew: Crew,
) -> list[str]:
    """Until all have ended; the names of orders whose process died."""
    waiting = deque(names)
    died: list[str] = []
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < processes:
                workers.append(_begin(waiting.popleft(), orders, crew))
            for ready in wait([worker.connection for worker in workers]):
                worker = next(one for one in workers if one.connection is ready)
                try:
                    message = worker.connection.recv()
                except (EOFError, ConnectionResetError):  # reset: it left something unread
                    worker.process.join()
                    workers.remove(worker)
                    died.append(worker.name)
                    continue
                if "stage" in message:
                    listener.goes_on(worker.name, message["stage"], message["share"])
                    continue
                if message["error"] is not None:
                    failures[worker.name] = message["error"]
                listener.has_ended(worker.name, message["error"])
                if waiting:
                    worker.name = waiting.popleft()
                    _hand_over(worker, orders)
                else:
                    workers.remove(worker)
                    crew.idle.append(worker)
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()
    return died


def _begin(name: str, orders: Mapping[str, Order], crew: Crew) -> _Worker:
    if crew.idle:
        worker = crew.idle.pop()
        worker.name = name
        _hand_over(worker, orders)
        return worker
    # A fork would copy TensorFlow's threads in whatever state they are.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=False)
    process.start()
    theirs.close()
    worker = _Worker(process=process, connection=ours, name=name)
    _hand_over(worker, orders)
    return worker


def _hand_over(worker: _Worker, orders: Mapping[str, Order]) -> None:
    with suppress(BrokenPipeError):  # it has died, which is seen when it is listened to
        worker.connection.send(orders[worker.name])


# In the worker


class _Teller(Silence):
    """Passes on the stages, and how far a training is."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._told = ("", -1)

    def stage_begins(self, name: str) -> None:
        self._connection.send({"stage": name, "share": None})

    def training(self, progress: Progress) -> None:
        share = ((progress.epoch - 1) + progress.step / progress.steps) / progress.epochs
        told = (f"epoch {progress.epoch}/{progress.epochs}", int(100 * share))
        if told != self._told:
            self._told = told
            self._connection.send({"stage": told[0], "share": share})


def _serve(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's to handle; it ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(2, 1)  # what libraries print is no result
    while True:
        try:
            order = connection.recv()
        except EOFError:
            return
        connection.send({"error": _error_of(order, _Teller(connection))})


def _error_of(order: Order, teller: _Teller) -> EmbError | None:
    try:
        build_untimed(order, listener=teller)
    except EmbError as error:
        return error
    return None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
