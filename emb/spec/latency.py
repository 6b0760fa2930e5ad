"""Times of one file on one runtime: raw, of one fresh process, and as a row tells them. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one fresh process gave.

    samples_ns: single inferences at batch 1 after warm-up, without the copy of the input.
    cold_start_ns: to open the file and run it once.
    peak_memory_bytes: of the whole process when it had run once; None where the system does not say.
    energy_uj: of the processor's package while the samples were taken; None without a counter.
    """

    samples_ns: tuple[int, ...]
    cold_start_ns: int
    peak_memory_bytes: int | None
    energy_uj: float | None

    def __post_init__(self) -> None:
        if not self.samples_ns or min(self.samples_ns) < 0:
            raise ValueError("samples_ns must hold at least one time, none of them negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """Time of one inference of one image.

    runs: timed inferences behind the quantiles.  p99_us: None for too few of them.
    round_medians_us: of each fresh process that was measured; empty where one process was.  median_us is then the
    median of these, and low_us, high_us its 95 % bootstrap interval, at least 1 % to either side; None for too few
    rounds.
    noise: why the figures are to be doubted, each reason in words; empty for none.
    """

    median_us: float
    p90_us: float
    runs: int
    threads: int
    p99_us: float | None = None
    low_us: float | None = None
    high_us: float | None = None
    round_medians_us: tuple[float, ...] = ()
    noise: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LatencySummary:
        """The value whose `to_json` it is; what older reports did not know is absent."""
        return cls(
            median_us=document["median"],
            p90_us=document["p90"],
            runs=document["runs"],
            threads=document["threads"],
            p99_us=document.get("p99"),
            low_us=document.get("low"),
            high_us=document.get("high"),
            round_medians_us=tuple(document.get("rounds", ())),
            noise=tuple(document.get("noise", ())),
        )

    def to_json(self) -> dict[str, Any]:
        """The field latency_us of a row."""
        return {
            "median": self.median_us,
            "low": self.low_us,
            "high": self.high_us,
            "p90": self.p90_us,
            "p99": self.p99_us,
            "runs": self.runs,
            "threads": self.threads,
            "rounds": list(self.round_medians_us),
            "noise": list(self.noise),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Inferences of a whole machine: `processes` of them, each with `threads` threads, ran at the same time.

    images_per_s: of all, in the window of window_s seconds in which every one of them was running.
    """

    images_per_s: float
    processes: int
    threads: int
    window_s: float
