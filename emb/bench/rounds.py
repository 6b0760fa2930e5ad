"""Makes one row's figures of its rounds, and says when they are to be doubted. Pure; measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from emb.bench.statistics import bootstrap_median, percentile
from emb.spec.comparison import LEAST_DIFFERENCE
from emb.spec.latency import LatencySummary, Round

# With fewer, no interval between two of them holds the median with 95 %: 1 - 2 / 2**5 is 94 %.
LEAST_ROUNDS = 6
# With fewer runs the 99th percentile is the slowest run.
LEAST_RUNS_FOR_P99 = 100
# Limits of a quiet machine, as shares of the median.
WIDEST_INTERVAL = 0.05
LARGEST_P90 = 1.25
# Where a host moves the virtual cores, a value goes from one to another and back in 85 or 400 ns, for minutes on end.
# Two threads were 9 and 19 us slower by that, for networks of 8 and 14 operations (docs/explanation/measuring.md).
_HANDOVERS_DECIDE_BELOW_US = 1000.0
# What a sum of shares may miss its exact value by; far less than the share of one run.
_ROUNDING = 1e-9


def summary_of(rounds: Sequence[Round], *, threads: int, virtual: bool) -> LatencySummary:
    """rounds: at least one, each of a fresh process.  virtual: whether the machine's cores are a host's to place.

    Where a process's memory comes to lie decides up to a few percent of its speed, and all of its runs share that. So
    the median is that of the rounds' medians, and its interval is over rounds, and reaches 1 % to either side at least:
    the same machine has another median a minute later. p90 and p99 are of all runs together.
    """
    runs = sum(len(one.samples_ns) for one in rounds)
    medians_us = tuple(median(one.samples_ns) / 1000 for one in rounds)
    median_us, p90_us = median(medians_us), _percentile_us(rounds, 90)
    low, high = _interval(medians_us, median_us) if len(rounds) >= LEAST_ROUNDS else (None, None)
    return LatencySummary(
        median_us=median_us,
        low_us=low,
        high_us=high,
        p90_us=p90_us,
        p99_us=_percentile_us(rounds, 99) if runs >= LEAST_RUNS_FOR_P99 else None,
        runs=runs,
        threads=threads,
        round_medians_us=medians_us,
        noise=noise(median_us=median_us, low_us=low, high_us=high, p90_us=p90_us, handed_over=virtual and threads > 1),
    )


def _interval(medians_us: Sequence[float], median_us: float) -> tuple[float, float]:
    low, high = bootstrap_median(medians_us)
    return min(low, (1 - LEAST_DIFFERENCE) * median_us), max(high, (1 + LEAST_DIFFERENCE) * median_us)


def _percentile_us(rounds: Sequence[Round], percent: int) -> float:
    """The smallest run that at least `percent` % of the runs do not exceed, where every round counts alike.

    A fast round holds more runs than a slow one; counted by runs, the 90th percentile could lie below the median.
    """
    times_ns = np.concatenate([np.asarray(one.samples_ns) for one in rounds])
    shares = np.concatenate([np.full(len(one.samples_ns), 1 / len(one.samples_ns)) for one in rounds]) / len(rounds)
    order = np.argsort(times_ns, kind="stable")
    place = int(np.searchsorted(np.cumsum(shares[order]), percent / 100 - _ROUNDING))
    return float(times_ns[order][min(place, len(order) - 1)]) / 1000


def p99_us_of(samples_ns: Sequence[int]) -> float | None:
    """The 99th percentile; None for fewer than 100 samples."""
    return percentile(samples_ns, 99) / 1000 if len(samples_ns) >= LEAST_RUNS_FOR_P99 else None


def noise(
    *, median_us: float, low_us: float | None, high_us: float | None, p90_us: float, handed_over: bool
) -> tuple[str, ...]:
    """Why a row says little; empty for a quiet one.

    handed_over: whether threads share the work on cores that a host moves, which a row's own samples need not show.
    """
    found = []
    if low_us is not None and high_us is not None and high_us - low_us > WIDEST_INTERVAL * median_us:
        found.append(f"the interval is {100 * (high_us - low_us) / median_us:.0f} % of the median wide")
    if p90_us > LARGEST_P90 * median_us:
        found.append(f"one run in ten took {p90_us / median_us:.1f} times the median or longer")
    if handed_over and median_us < _HANDOVERS_DECIDE_BELOW_US:
        found.append(
            "threads on a virtual machine: where its host places the cores decides, and a later run may differ"
        )
    return tuple(found)


def cold_start_us_of(rounds: Sequence[Round]) -> float:
    """The median over the rounds."""
    return median(one.cold_start_ns for one in rounds) / 1000


def peak_memory_bytes_of(rounds: Sequence[Round]) -> int | None:
    """The most that any of the processes took; None if one does not say."""
    peaks = [one.peak_memory_bytes for one in rounds]
    return max((peak for peak in peaks if peak is not None), default=None) if None not in peaks else None


def energy_uj_of(rounds: Sequence[Round]) -> float | None:
    """Of one inference: all that was counted by all that ran; None if a round has no count."""
    counted = [one.energy_uj for one in rounds]
    runs = sum(len(one.samples_ns) for one in rounds)
    return None if None in counted else sum(one for one in counted if one is not None) / runs
