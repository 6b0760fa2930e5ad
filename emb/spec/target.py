"""A target: the machine to build for, as targets/*.toml describes it. Knows no runtime and no rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Arena = Literal["tflite", "tflite-micro"]
Architecture = Literal["any", "x86_64", "aarch64", "armv6-m", "armv7e-m", "armv8.1-m"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """kind: whose rules or compiler decide what runs on it; "none" if the target has none.

    cache_bytes: of an Edge TPU, on-chip memory for parameters; what does not fit is streamed at every inference.
    configuration: of an Ethos-U, which one with how many multipliers, e.g. "ethos-u55-128".
    system_config, memory_mode: of an Ethos-U, the sections of Vela's own Arm/vela.ini that describe its clock, its
    memories and what lies in which.  sram_bytes: of an Ethos-U, the SRAM that it may use.
    """

    kind: Literal["none", "edge-tpu", "ethos-u"] = "none"
    cache_bytes: int = 0
    configuration: str = ""
    system_config: str = ""
    memory_mode: str = ""
    sram_bytes: int = 0

    def __post_init__(self) -> None:
        if self.cache_bytes < 0:
            raise ValueError("cache_bytes must not be negative")
        if self.sram_bytes < 0:
            raise ValueError("sram_bytes must not be negative")
        for name in ("configuration", "system_config", "memory_mode", "sram_bytes"):
            if bool(getattr(self, name)) != (self.kind == "ethos-u"):
                raise ValueError(f"{name} belongs to an Ethos-U, which needs it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """A published latency of one network in int8 on the target, of one image.

    macs: of that network, for one image.  source: who measured it, and how.
    streamed_bytes: of its parameters, those that the accelerator's cache does not hold, as emb predicts them of its own
    network of that name.
    """

    network: str
    macs: int
    latency_us: float
    source: str
    streamed_bytes: int = 0

    def __post_init__(self) -> None:
        for name in ("macs", "latency_us"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
        if self.streamed_bytes < 0:
            raise ValueError("streamed_bytes must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """runtimes: public names of the registry emb.runtimes that run on the target, in order of preference; none on a
    microcontroller, whose models are compiled in.

    cores, clock_hz, ram_bytes: 0 if they are those of the machine at hand. Where a board is sold with several memories,
    the smallest one counts.
    flash_bytes: where the model must lie, of a microcontroller; 0 where it lies on a disk or card.
    python: versions for which the runtimes have wheels on this architecture.
    int8_lanes, int8_maps: channels that the first runtime's int8 convolution takes at once for every tap, and those of
    the output that it computes at once, so that fewer take as long; 0 if that differs between its processors or is not
    known.
    arena: of which runtime the activations are laid out.  source: of processor and memory.
    """

    name: str
    summary: str
    processor: str
    runtimes: tuple[str, ...]
    architecture: Architecture = "any"
    cores: int = 0
    clock_hz: int = 0
    ram_bytes: int = 0
    flash_bytes: int = 0
    python: tuple[str, ...] = ()
    int8_lanes: int = 0
    int8_maps: int = 0
    arena: Arena = "tflite"
    source: str = ""
    accelerator: Accelerator = field(default_factory=Accelerator)
    priors: tuple[Prior, ...] = ()

    def __post_init__(self) -> None:
        for name in ("cores", "clock_hz", "ram_bytes", "flash_bytes", "int8_lanes", "int8_maps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
