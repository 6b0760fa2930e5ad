"""Draws a training: its curves and its gradient norms, as SVG and PNG, and its epochs as a section of Markdown.

Knows no training loop: the values are handed in. Nothing is smoothed or interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from emb.report.chart import Drawing, render
from emb.report.tables import markdown_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PANELS = {"loss": "loss", "accuracy": "accuracy %", "learning rate": "learning rate"}
_LINES = {
    "loss": ("loss", "train", 1.0),
    "validation_loss": ("loss", "validation", 1.0),
    "accuracy": ("accuracy", "train", 100.0),
    "validation_accuracy": ("accuracy", "validation", 100.0),
    "learning_rate": ("learning rate", "train", 1.0),
}
_TABLE_ROWS = 12
_DRAWN_STEPS = 250
_NAMED_LAYERS = 24


def draw_training(epochs: Sequence[Mapping[str, float | None]], *, title: str) -> Drawing:
    """Loss, accuracy and learning rate over the epochs, a panel each.

    epochs: first to last, at least one; `loss`, `accuracy` (share in [0, 1]), `learning_rate` of the train images,
    `validation_loss` and `validation_accuracy` where there are any. Other keys are left aside.
    """
    import altair as alt

    points = [
        {"epoch": number, "panel": panel, "images": images, "value": factor * value}
        for number, epoch in enumerate(epochs, start=1)
        for key, (panel, images, factor) in _LINES.items()
        if (value := epoch.get(key)) is not None and math.isfinite(value)
    ]
    panels = [
        alt.Chart(alt.Data(values=[point for point in points if point["panel"] == panel]), width=260, height=200)
        .mark_line(point=len(epochs) <= 30)
        .encode(
            x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("value:Q", title=label, scale=alt.Scale(zero=False)),
            color=alt.Color("images:N", title="images", sort=["train", "validation"]),
        )
        for panel, label in _PANELS.items()
        if any(point["panel"] == panel for point in points)
    ]
    return render(alt.hconcat(*panels, title=title))


def draw_gradient_norms(layers: Sequence[str], norms: NDArray[np.float32], *, title: str) -> Drawing:
    """The 2-norm of each layer's gradient over the steps, logarithmic, coloured from input to output.

    layers: names from input to output.  norms: (steps, layers) float, not negative.
    Of a long training one step in k is drawn. A norm of exactly 0 has no place on a logarithmic axis: it is left
    out, and the chart says how many were.
    """
    import altair as alt

    stride = max(1, math.ceil(len(norms) / _DRAWN_STEPS))
    points = [
        {"step": step + 1, "layer": layer, "depth": depth + 1, "norm": float(norms[step, depth])}
        for step in range(0, len(norms), stride)
        for depth, layer in enumerate(layers)
    ]
    drawn = [point for point in points if point["norm"] > 0 and math.isfinite(point["norm"])]
    notes = [f"one step in {stride}"] if stride > 1 else []
    if len(drawn) < len(points):
        notes.append(f"{len(points) - len(drawn):,} of {len(points):,} norms are 0 or not finite and not shown")
    if len(layers) <= _NAMED_LAYERS:
        color = alt.Color(
            "layer:O", title="layer", sort=list(layers), scale=alt.Scale(domain=list(layers), scheme="viridis")
        )
    else:
        color = alt.Color(
            "depth:Q", title="layer", scale=alt.Scale(domain=[1, len(layers)], scheme="viridis"),
            legend=alt.Legend(format="d"),
        )  # fmt: skip
    chart = (
        alt.Chart(
            alt.Data(values=drawn),
            width=560,
            height=340,
            title=alt.TitleParams(title, subtitle="; ".join(notes) or alt.Undefined),
        )
        .mark_line(strokeWidth=1.2)
        .encode(
            x=alt.X("step:Q", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("norm:Q", title="2-norm of the gradient", scale=alt.Scale(type="log"), axis=alt.Axis(format="~e")),
            color=color,
            detail="layer:N",
        )
    )
    return render(chart)


def training_section(epochs: Sequence[Mapping[str, float | None]], *, image: str) -> str:
    """The section "Training" of a Markdown page: the image, and a table of at most twelve epochs, evenly spread.

    image: path of the drawing, relative to the page. Empty for a training of no epochs.
    """
    if not epochs:
        return ""
    head = ("epoch", "loss", "accuracy %", "validation accuracy %", "learning rate", "seconds")
    lines = ["", "## Training", "", f"![Training curves]({image})", ""]
    rows = [_cells(number, epochs[number - 1]) for number in _chosen(len(epochs))]
    lines += markdown_table(head, rows, left=0)
    if len(epochs) > _TABLE_ROWS:
        lines += ["", f"{_TABLE_ROWS} of {len(epochs)} epochs; all of them stand in `history.json`."]
    return "\n".join(lines) + "\n"


def _chosen(epochs: int) -> list[int]:
    """Numbers of the epochs to show, counted from 1: all, or twelve spread evenly."""
    if epochs <= _TABLE_ROWS:
        return list(range(1, epochs + 1))
    return [1 + round(row * (epochs - 1) / (_TABLE_ROWS - 1)) for row in range(_TABLE_ROWS)]


def _cells(number: int, epoch: Mapping[str, float | None]) -> list[str]:
    def told(key: str, form: str, factor: float = 1.0) -> str:
        value = epoch.get(key)
        return "–" if value is None else format(factor * value, form)

    return [
        str(number),
        told("loss", ".4f"),
        told("accuracy", ".2f", 100),
        told("validation_accuracy", ".2f", 100),
        told("learning_rate", ".3g"),
        told("seconds", ".1f"),
    ]
