"""Makes orders ready in several processes, each order once, and outlives a process that dies. Takes no times."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Protocol, Self

from emb.bench import free_memory_bytes
from emb.errors import EmbError, RuntimeFailure
from emb.pipeline.build import Order, build_untimed
from emb.pipeline.memory_needs import memory_needs
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


class MakeReady(Protocol):
    """`make_ready`, here or elsewhere."""

    def __call__(
        self, orders: Mapping[str, Order], *, processes: int, alone: Sequence[str], listener: TrialListener
    ) -> dict[str, EmbError]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """needs: bytes of each order by its name.  bytes: that all of them together may take; None: nobody knows."""

    needs: Mapping[str, int]
    bytes: int | None

    def next_of(self, waiting: deque[str], beside: Sequence[str]) -> str | None:
        """Takes out of `waiting` the first that there is room for beside those at work; one always has room alone."""
        for name in waiting:
            fits = self.bytes is not None and sum(self.needs[one] for one in (name, *beside)) <= self.bytes
            if fits or not beside:
                waiting.remove(name)
                return name
        return None


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
    trial_bytes: int | None = None,
    crew: Crew | None = None,
) -> dict[str, EmbError]:
    """`build_untimed` of every order: name -> what went wrong, for those where something did.

    processes: at most so many at a time, and no more than have room in memory beside each other.
    alone: names that must not run beside others. They come last, one at a time.
    trial_bytes: memory for each order; by default what its network is reckoned to take.
    crew: whose processes are taken and left there; without one they end here.
    An order whose process dies is tried once more, by itself; it may have been the neighbour that took the memory.
    """
    if crew is None:
        with Crew() as own:
            return make_ready(
                orders, processes=processes, alone=alone, listener=listener, trial_bytes=trial_bytes, crew=own
            )
    failures: dict[str, EmbError] = {}
    together = [name for name in orders if name not in alone]
    one_by_one = processes == 1 or len(together) < 2
    needs = dict.fromkeys(orders, trial_bytes or 0) if trial_bytes or one_by_one else memory_needs(orders)
    room = _Room(needs=needs, bytes=free_memory_bytes())
    died = _run(orders, together, processes, room, failures, listener, crew)
    died += _run(orders, alone, 1, room, failures, listener, crew)
    for name in _run(orders, died, 1, room, failures, listener, crew):
        failures[name] = died_twice(name)
        listener.has_ended(name, failures[name])
    return failures


def died_twice(name: str) -> RuntimeFailure:
    """What is said of an order whose second process has died, too."""
    return RuntimeFailure(
        f"the process of {name} died twice",
        why="it was ended from outside, or memory ran out",
        fix="run the sweep again: what is done is kept; if memory ran out, with a smaller train.batch_size",
    )


def _run(
    orders: Mapping[str, Order],
    names: Sequence[str],
    processes: int,
    room: _Room,
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
            while len(workers) < processes and (name := room.next_of(waiting, [one.name for one in workers])):
                workers.append(_begin(name, orders, crew))
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
                if name := room.next_of(waiting, [one.name for one in workers if one is not worker]):
                    worker.name = name
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


class Teller(Silence):
    """Tells the stages, and how far a training is: `tell` takes what TrialListener.goes_on takes after the name."""

    def __init__(self, tell: Callable[[str, float | None], None]) -> None:
        self._tell = tell
        self._told = ("", -1)

    def stage_begins(self, name: str) -> None:
        self._tell(name, None)

    def training(self, progress: Progress) -> None:
        share = ((progress.epoch - 1) + progress.step / progress.steps) / progress.epochs
        told = (f"epoch {progress.epoch}/{progress.epochs}", int(100 * share))
        if told != self._told:
            self._told = told
            self._tell(told[0], share)


def _serve(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's to handle; it ends this process
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.dup2(2, 1)  # what libraries print is no result
    while True:
        try:
            order = connection.recv()
        except EOFError:
            return
        tell = Teller(lambda stage, share: connection.send({"stage": stage, "share": share}))
        connection.send({"error": error_of(order, tell)})


def error_of(order: Order, teller: Teller) -> EmbError | None:
    """What goes wrong in `build_untimed` of an order, if anything does."""
    try:
        build_untimed(order, listener=teller)
    except EmbError as error:
        return error
    return None


def end_with_parent() -> None:
    """Waits for the end of the process that started this one, and ends this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
