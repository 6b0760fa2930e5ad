"""Makes a Latency of raw times and the circumstances they were taken in. Times nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from emb.bench.machine import describe_machine
from emb.spec.measurement import Latency, Machine


def latency_of(
    samples_ns: NDArray[Any] | Sequence[int],
    *,
    runtime: str,
    version: str,
    mode: str,
    threads: int,
    machine: Machine | None = None,
) -> Latency:
    """samples_ns: (runs,) integers, at least one, in the order they were taken.  machine: this one by default.

    Raises ValueError for no samples or a negative one.
    """
    return Latency(
        samples_ns=tuple(int(sample) for sample in samples_ns),
        runtime=runtime,
        version=version,
        mode=mode,
        threads=threads,
        machine=machine or describe_machine(),
    )
