"""The width multiplier: how many channels a layer keeps. Knows no architecture."""

from __future__ import annotations

import math

from emb.errors import SpecError


def scaled(count: int, *, width: float, layer: str, multiple: int = 1) -> int:
    """`count` channels times `width`, rounded to the nearest multiple of `multiple`.

    layer: its name, for the message.  multiple: what the count must be divisible by, e.g. the number of groups.
    width = 1 gives `count` itself. Raises SpecError for a width that is not positive or leaves the layer empty.
    """
    if not (width > 0 and math.isfinite(width)):
        raise SpecError(f"width must be above 0, not {width}", fix="1 is the network as published, 0.5 half as wide")
    # Half a channel rounds up, so that the smallest width that is offered below is enough.
    kept = math.floor(count * width / multiple + 0.5) * multiple
    if kept < 1:
        smallest = math.ceil(500 * multiple / count) / 1000
        raise SpecError(
            f"a width of {width:g} leaves the layer {layer} without channels",
            why=f"it has {count} at width 1" + (f", and must keep a multiple of {multiple}" if multiple > 1 else ""),
            fix=f"give model.arguments.width of at least {smallest:g}",
        )
    return kept
