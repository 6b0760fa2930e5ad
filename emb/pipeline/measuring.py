"""Times one model file on one runtime in one process, as `emb build` does, and says what may run where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.bench import median, percentile
from emb.bench.rounds import p99_us_of
from emb.runtimes import RUNTIMES, open_runtime, to_input
from emb.spec.contract import Pixels
from emb.spec.latency import LatencySummary

WARM_UP_S = 0.3
MEASURE_S = 0.7
LEAST_RUNS = 20

# Of two files in turn.
PAIR_WARM_UP_S = 0.2
_TURN_S, _TURN_RUNS = 0.06, 3

# Reference kernels take about a second for 1e9 MACs; this is what a row on them may take, three minutes or so.
REFERENCE_MACS = 200 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Raw times of single inferences at batch 1, and the peak memory of the process that ran one.

    peak_memory_bytes: see emb.spec.measurement.Memory.peak_bytes; None where it cannot be read.
    """

    samples_ns: tuple[int, ...]
    threads: int
    peak_memory_bytes: int | None

    @property
    def summary(self) -> LatencySummary:
        return LatencySummary(
            median_us=median(self.samples_ns) / 1000,
            p90_us=percentile(self.samples_ns, 90) / 1000,
            p99_us=p99_us_of(self.samples_ns),
            runs=len(self.samples_ns),
            threads=self.threads,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "samples_ns": list(self.samples_ns),
            "threads": self.threads,
            "peak_memory_bytes": self.peak_memory_bytes,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Timing:
        """The value that `to_json` wrote."""
        return cls(**{**document, "samples_ns": tuple(document["samples_ns"])})


def time_file(
    path: Path, images: NDArray[np.uint8], *, runtime: str, mode: str, threads: int, pixels: Pixels
) -> Timing:
    """Time single inferences in a fresh process: warm-up until steady, then at least 0.7 s and 20 runs.

    images: (n, height, width, channels) uint8, used in turn. Raises RuntimeFailure or ModelError.
    """
    with open_runtime(runtime, model=path, mode=mode, threads=threads) as process:
        inputs = to_input(images, process.input, pixels)
        process.run_each(inputs[:1])
        peak_memory_bytes = process.peak_memory_bytes()
        samples = process.time_runs(inputs, warm_up_s=WARM_UP_S, measure_s=MEASURE_S, min_runs=LEAST_RUNS)
    return Timing(samples_ns=tuple(samples.tolist()), threads=threads, peak_memory_bytes=peak_memory_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A file, how it takes raw pixels, and the runtime that runs it."""

    path: Path
    pixels: Pixels
    runtime: str


def medians_in_turn_ns(
    files: tuple[Timed, Timed], images: NDArray[np.uint8], *, threads: int = 1
) -> tuple[float, float]:
    """The median time of either file, from one fresh process each, in the order A B B A.

    images: (n, height, width, channels) uint8, used in turn. Raises RuntimeFailure or ModelError.
    """
    one, other = files
    with (
        open_runtime(one.runtime, model=one.path, threads=threads) as first,
        open_runtime(other.runtime, model=other.path, threads=threads) as second,
    ):
        inputs = [to_input(images, process.input, file.pixels) for process, file in ((first, one), (second, other))]
        samples: tuple[list[int], list[int]] = ([], [])
        for place, process in ((0, first), (1, second)):
            process.time_runs(inputs[place], warm_up_s=PAIR_WARM_UP_S, measure_s=0.0, min_runs=1)
        for place, process in ((0, first), (1, second), (1, second), (0, first)):
            taken = process.time_runs(inputs[place], warm_up_s=0.0, measure_s=_TURN_S, min_runs=_TURN_RUNS)
            samples[place].extend(taken.tolist())
    return median(samples[0]), median(samples[1])


def too_long_on_reference_kernels(mode: str, *, macs: int, images: int) -> str:
    """Why a file is not run on so many images in this mode, or "". Golden outputs are taken all the same.

    macs: of one inference.
    """
    if mode != "reference" or macs * images <= REFERENCE_MACS:
        return ""
    return f"{images:,} images of {macs / 1e6:,.0f} M MACs take too long on reference kernels"


def golden_on(mode: str, *, macs: int, images: int) -> int:
    """How many of the golden images are run: all of them, fewer on reference kernels where one takes seconds."""
    return images if mode != "reference" else max(1, min(images, REFERENCE_MACS // (4 * max(macs, 1))))


def ways_to_run(file_format: str, *, scheme: str, with_reference_kernels: bool) -> list[tuple[str, str, str]]:
    """(runtime, mode, absence) for every runtime of a format; absence says why it cannot be measured here, or "".

    with_reference_kernels: also the modes that exist to be compared bit for bit, which integer models alone can be.
    """
    ways = []
    for name in RUNTIMES.names():
        runtime = RUNTIMES.get(name)
        if file_format not in runtime.FORMATS:
            continue
        absence = runtime.absence() or runtime.refusal(scheme) or ""
        modes = runtime.MODES if with_reference_kernels and not absence else runtime.MODES[:1]
        ways += [(name, mode, absence) for mode in modes]
    return ways
