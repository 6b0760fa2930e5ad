"""Times rows in interleaved rounds, a fresh process for each, and whole machines at once. Makes no figures of them.

What disturbs the machine for a while so disturbs every row a little, and none alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from emb.bench.energy import Counters
from emb.errors import EmbError, RuntimeFailure
from emb.runtimes import RuntimeProcess, open_runtime, to_input
from emb.spec.contract import Pixels
from emb.spec.latency import Round, Throughput

ROUNDS = 10
# Of all rounds of a row together; warm-up comes on top.
MEASURE_S = 1.2
WARM_UP_S = 0.5
# A row that needs longer gets fewer rounds.
ROW_S = 60.0
_SLOW_S = 1.0
_THROUGHPUT_S = 1.1
_THROUGHPUT_RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One file on one runtime. images: (n, height, width, channels) uint8, used in turn."""

    path: Path
    runtime: str
    mode: str
    threads: int
    images: NDArray[np.uint8]
    pixels: Pixels


def take_turns(
    ways: Sequence[Way], *, rounds: int, counters: Counters, told: Callable[[int], None]
) -> list[list[Round] | EmbError]:
    """For each way its rounds, or what went wrong in one of them.

    In every round each way has one process, in an order that turns round from one to the next. A way gets fewer rounds
    where they would take more than a minute. told: is called with the number of each round, from 1, before it begins.
    """
    taken: list[list[Round]] = [[] for _ in ways]
    spent_s = [0.0] * len(ways)
    failures: dict[int, EmbError] = {}
    for number in range(rounds):
        places = [
            place
            for place in range(len(ways))
            if place not in failures and _has_time(spent_s[place], rounds=len(taken[place]))
        ]
        if not places:
            break
        told(number + 1)
        for place in places if number % 2 == 0 else reversed(places):
            begin = monotonic()
            try:
                taken[place].append(one_round(ways[place], measure_s=MEASURE_S / rounds, counters=counters))
            except EmbError as error:
                failures[place] = error
            spent_s[place] += monotonic() - begin
    return [failures.get(place, found) for place, found in enumerate(taken)]


def _has_time(spent_s: float, *, rounds: int) -> bool:
    """Whether a row may have another round that takes as long as those it had."""
    return rounds == 0 or spent_s * (rounds + 1) / rounds <= ROW_S


def one_round(way: Way, *, measure_s: float, counters: Counters) -> Round:
    """What one fresh process gives in so many seconds after warm-up. Raises RuntimeFailure or ModelError."""
    with open_runtime(way.runtime, model=way.path, mode=way.mode, threads=way.threads) as process:
        inputs = to_input(way.images, process.input, way.pixels)
        cold_start_ns = process.cold_start_ns(inputs)
        peak_memory_bytes = process.peak_memory_bytes()
        is_slow = cold_start_ns > _SLOW_S * 1e9
        if not is_slow:
            process.time_runs(inputs, warm_up_s=WARM_UP_S, measure_s=0.0, min_runs=1)
        before = counters.read_uj()
        samples = process.time_runs(inputs, warm_up_s=0.0, measure_s=measure_s, min_runs=1 if is_slow else 2)
        energy_uj = counters.spent_uj(before, counters.read_uj())
    return Round(
        samples_ns=tuple(samples.tolist()),
        cold_start_ns=cold_start_ns,
        peak_memory_bytes=peak_memory_bytes,
        energy_uj=energy_uj,
    )


def together(way: Way, *, processes: int, run_s: float) -> Throughput:
    """What so many processes of this way do at the same time, for a second or three runs of run_s after warm-up.

    Raises EmbError.
    """
    duration_s = max(_THROUGHPUT_S, _THROUGHPUT_RUNS * run_s)
    with ExitStack() as opened:
        workers = [
            opened.enter_context(open_runtime(way.runtime, model=way.path, mode=way.mode, threads=way.threads))
            for _ in range(processes)
        ]
        inputs = to_input(way.images, workers[0].input, way.pixels)
        start = Barrier(processes)

        def run_with_the_others(worker: RuntimeProcess) -> NDArray[np.int64]:
            try:
                worker.time_runs(inputs, warm_up_s=WARM_UP_S, measure_s=0.0, min_runs=1)
                start.wait()
            except BaseException:
                start.abort()  # or the others would wait for ever
                raise
            return worker.run_ends(inputs, duration_s=duration_s)

        with ThreadPoolExecutor(processes) as pool:
            running = [pool.submit(run_with_the_others, worker) for worker in workers]
        failures = [failure for failure in (task.exception() for task in running) if failure is not None]
        # A broken barrier is what those have that waited for the one that failed.
        for failure in sorted(failures, key=lambda failure: isinstance(failure, BrokenBarrierError)):
            raise failure
        images_per_s, window_s = rate([task.result() for task in running])
    return Throughput(images_per_s=images_per_s, processes=processes, threads=way.threads, window_s=window_s)


def rate(ends_ns: Sequence[NDArray[np.int64]]) -> tuple[float, float]:
    """(runs per second of all workers together, seconds of the window): in the window in which every one was running.

    ends_ns: of each worker, when each of its runs ended on a common clock; two at least, rising. A run that is only
    partly in the window counts with that part. Raises RuntimeFailure if there is no such window.
    """
    first, last = max(int(ends[0]) for ends in ends_ns), min(int(ends[-1]) for ends in ends_ns)
    if last <= first:
        raise RuntimeFailure(
            "the processes did not run at the same time",
            why="one had ended before another had done its first run",
            fix="measure again when the machine does nothing else",
        )
    runs = sum(
        float(np.interp(last, ends, np.arange(len(ends))) - np.interp(first, ends, np.arange(len(ends))))
        for ends in ends_ns
    )
    window_s = (last - first) / 1e9
    return runs / window_s, window_s
