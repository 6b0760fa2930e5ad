"""Renders an Altair chart as SVG and PNG. Knows no data; needs no browser, no network and no display."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair

_PNG_SCALE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One chart. svg: text of an SVG file.  png: bytes of a PNG file of twice as many pixels each way."""

    svg: str
    png: bytes


def render(chart: altair.TopLevelMixin) -> Drawing:
    """The chart as vl-convert draws it, which carries its own renderer and fonts."""
    import vl_convert

    specification: dict[str, Any] = json.loads(chart.to_json())
    return Drawing(
        svg=vl_convert.vegalite_to_svg(specification),
        png=vl_convert.vegalite_to_png(specification, scale=_PNG_SCALE),
    )
