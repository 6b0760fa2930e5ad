"""Where an operation will run on a target, and why. Knows no rule and no target."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """operation, kind: name and kind in the file.  layer: the Keras layer behind it, "" if it is not known.

    device: "cpu", or the accelerator's kind, e.g. "edge-tpu".
    status: why, in the words of the accelerator's own compiler where there is one.  detail: what was found; may be "".
    """

    operation: str
    kind: str
    device: str
    status: str
    detail: str = ""
    layer: str = ""
