"""How a pixel 0..255 becomes the value that a model's first layer expects, by the names that users write."""

from __future__ import annotations

from collections.abc import Mapping

from emb.errors import SpecError
from emb.registry import nearest
from emb.spec.contract import Pixels

PIXELS: Mapping[str, Pixels] = {
    "raw": Pixels(),
    "0..1": Pixels(scale=1 / 255),
    "-1..1": Pixels(scale=2 / 255, offset=-1.0),
}


def pixels_of(name: str | None) -> Pixels | None:
    """The Pixels of a name; None stays None. Raises SpecError for an unknown name."""
    if name is None:
        return None
    if name not in PIXELS:
        raise SpecError(f"unknown range of pixels {name!r}", fix=nearest(name, PIXELS))
    return PIXELS[name]
