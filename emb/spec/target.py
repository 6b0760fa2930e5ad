"""A target: the machine to build for, as targets/*.toml describes it. Knows no runtime and no rule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """runtimes: public names of the registry emb.runtimes that run on the target, in order of preference.

    ram_bytes: 0 if it is that of the machine at hand.
    """

    name: str
    summary: str
    processor: str
    runtimes: tuple[str, ...]
    ram_bytes: int = 0
