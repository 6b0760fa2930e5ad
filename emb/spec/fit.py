"""Why a model does not fit a target, and how long it may take there. Computes nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why the target cannot run the model as it should. operation: the one to blame, or ""."""

    what: str
    why: str
    fix: str
    operation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A latency that nobody measured. lowest_us, highest_us: of one image.  source: what they follow from."""

    lowest_us: float
    highest_us: float
    source: str
