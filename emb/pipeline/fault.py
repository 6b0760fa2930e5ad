"""Why a target cannot run a model as it should. Finds none itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """what, why, fix: as of an error.  operation: the one to blame, or ""."""

    what: str
    why: str
    fix: str
    operation: str = ""
