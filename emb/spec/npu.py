"""What a compiler says of a model on a neural processing unit. Knows no compiler."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NpuEstimate:
    """Figures of the compiler's own, of one inference; none of them was measured.

    compiler: its name and version.  cycles: of the unit, at clock_hz; latency_us follows from the two.
    sram_bytes, dram_bytes, flash_bytes: what the model takes of each memory, 0 of one that it does not use.
    file_bytes: of the compiled .tflite.
    """

    compiler: str
    cycles: int
    clock_hz: int
    latency_us: float
    sram_bytes: int
    dram_bytes: int
    flash_bytes: int
    file_bytes: int
