"""One HTML file for a set of builds, which needs nothing beside itself: no network, no server, no other file.

The tables are in the page and can be read without scripts; the charts are drawn in the browser from the same figures.
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.report.columns import ABSENT, estimate_range, microseconds, short_operation
from emb.report.page.axes import ESTIMATED, X_AXES, Y_AXES, value_of
from emb.report.page.charts import templates
from emb.spec.overview import Entry, Section
from emb.spec.page import BuildDetails, Confusion, Page

if TYPE_CHECKING:
    from jinja2 import Environment

GENERATOR = "emb"
_HERE = Path(__file__).parent
# A heat map of more classes is a grey square.
_MOST_CLASSES = 40
_WORST_PAIRS = 10


def render(page: Page, *, script: str) -> str:
    """The text of the file. script: the chart libraries, which must define `vegaEmbed`."""
    environment = _environment()
    return environment.get_template("page.html.j2").render(
        version=version("emb"),
        generator=GENERATOR,
        page=page,
        y_axes=Y_AXES,
        data=json.dumps(_data(page), separators=(",", ":"), allow_nan=False).replace("<", "\\u003C"),
        libraries=_in_script(script),
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        behaviour=_in_script((_HERE / "page.js").read_text(encoding="utf-8")),
        most_classes=_MOST_CLASSES,
    )


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": _percent,
        "count": lambda value: ABSENT if value is None else f"{value:,}",
        "microseconds": microseconds,
        "estimate": estimate_range,
        "data_uri": lambda png: "data:image/png;base64," + base64.b64encode(png).decode(),
        "short": short_operation,
        "share": lambda value, total: 0.0 if not value or not total else 100 * value / total,
    }
    environment.globals |= {
        "where": _where,
        "worst_pairs": _worst_pairs,
        "runtimes": lambda section: sorted({entry.row.runtime for entry in section.entries}),
        "machines": lambda section: sorted({entry.machine for entry in section.entries if entry.row.latency}),
        "targets": lambda section: sorted({entry.target for entry in section.entries if entry.target}),
        "has_estimates": _has_estimates,
        "x_axes_of": lambda section: [axis for axis in X_AXES if axis.key != ESTIMATED or _has_estimates(section)],
    }
    return environment


def _in_script(text: str) -> str:
    """A script that cannot end its own element; \\x3C means the same in a string and in a regular expression."""
    return re.sub(r"<(?=/script|!--)", r"\\x3C", text, flags=re.IGNORECASE)


def _percent(share: float | None, digits: int = 2) -> str:
    return ABSENT if share is None else f"{100 * share:.{digits}f}"


def _has_estimates(section: Section) -> bool:
    return any(entry.estimate for entry in section.entries)


def _where(entry: Entry) -> str:
    """Every number says where it is from."""
    if not entry.row.was_measured:
        return entry.row.source
    return f"{entry.row.source} ({entry.machine})" if entry.machine else entry.row.source


def _worst_pairs(build: BuildDetails, confusion: Confusion) -> list[tuple[str, str, int]]:
    """(class, what it was taken for, images), the most frequent first."""
    wrong = sorted((pair for pair in confusion.counts if pair[0] != pair[1]), key=lambda pair: -pair[2])
    return [(build.labels[label], build.labels[answer], count) for label, answer, count in wrong[:_WORST_PAIRS]]


def _data(page: Page) -> dict[str, Any]:
    """What the charts are drawn from."""
    return {
        "templates": templates(),
        "axes": {axis.key: axis.to_json() for axis in (*X_AXES, *Y_AXES)},
        "sections": [_points(section) for section in page.sections],
        "builds": [_build(build) for build in page.builds],
    }


def _points(section: Section) -> list[dict[str, Any]]:
    """One for each line of the table, in its order."""
    return [
        {
            "build": entry.build,
            "file": entry.row.file,
            "scheme": entry.row.scheme,
            "runtime": entry.row.runtime,
            "machine": entry.machine,
            "target": entry.target,
            "source": _where(entry),
            "estimate": entry.estimate and asdict(entry.estimate),
            "low": entry.row.accuracy_low,
            "high": entry.row.accuracy_high,
            "values": {axis.key: value_of(entry, axis) for axis in (*X_AXES, *Y_AXES)},
        }
        for entry in section.entries
    ]


def _build(build: BuildDetails) -> dict[str, Any]:
    keys = ("loss", "validation_loss", "accuracy", "validation_accuracy")
    return {
        "epochs": {key: [_rounded(epoch.get(key)) for epoch in build.epochs] for key in keys},
        "labels": list(build.labels) if len(build.labels) <= _MOST_CLASSES else [],
        "confusions": [list(one.counts) for one in build.confusions] if len(build.labels) <= _MOST_CLASSES else [],
    }


def _rounded(value: float | None) -> float | None:
    """Five digits are more than a curve shows; a training that went astray has gaps."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
