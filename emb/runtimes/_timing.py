"""The protocol of a latency measurement: warm up until the times are steady, then measure. Knows no process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int64]

_WARM_UP_SLICE_S = 0.05
_MEASURE_SLICE_S = 0.25
_SHORTEST_SLICE_S = 0.01
_STEADY = 0.02


def measure(run_for: Callable[[float], Samples], *, warm_up_s: float, measure_s: float, min_runs: int) -> Samples:
    """Times of single runs after warm-up: (n,) int64 ns, n >= min_runs, together at least about measure_s.

    run_for: runs for that many seconds, once at least; returns the times in ns.
    Warm-up ends when the medians of two successive slices of 0.05 s differ by less than 2 %, or after warm_up_s.
    """
    _warm_up(run_for, warm_up_s)
    slices: list[Samples] = []
    spent_s, runs = 0.0, 0
    while spent_s < measure_s or runs < min_runs or not slices:
        duration_s = min(_MEASURE_SLICE_S, max(measure_s - spent_s, _SHORTEST_SLICE_S))
        samples = run_for(duration_s)
        slices.append(samples)
        spent_s += max(_seconds(samples), duration_s)
        runs += len(samples)
    return np.concatenate(slices)


def _warm_up(run_for: Callable[[float], Samples], limit_s: float) -> None:
    spent_s, previous = 0.0, 0.0
    while spent_s < limit_s:
        samples = run_for(_WARM_UP_SLICE_S)
        spent_s += max(_seconds(samples), _WARM_UP_SLICE_S)
        current = float(np.median(samples))
        if abs(current - previous) < _STEADY * current:
            return
        previous = current


def _seconds(samples: Samples) -> float:
    return float(samples.sum()) / 1e9
