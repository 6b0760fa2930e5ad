"""The charts of the page as Vega-Lite without data, which the page's script puts in. Knows no build."""

from __future__ import annotations

from typing import Any

# Okabe and Ito 2008, "Color universal design": told apart by people with any kind of colour blindness. Yellow, which is
# too pale on white, and black, which is not seen in the dark, are left out.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DOMINATED = "#8a8a8a"


def templates() -> dict[str, Any]:
    """name -> specification. Each expects its data under "points"."""
    return {"tradeoff": _tradeoff(), "curves": _curves(), "confusion": _confusion()}


def _specification(chart: Any) -> dict[str, Any]:
    specification: dict[str, Any] = chart.to_dict(validate=True)
    specification.pop("config", None)
    return specification


def _tradeoff() -> dict[str, Any]:
    """Fields: x, y, low, high (of y), least (of x), frontier, group, scheme, and the texts of the tooltip."""
    import altair as alt

    x = alt.X("x:Q", title="", scale=alt.Scale(type="linear", zero=False, nice=True))
    y = alt.Y("y:Q", title="", scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip(f"{field}:N", title=title)
        for field, title in (
            *(("build", "build"), ("file", "file"), ("runtime", "runtime"), ("xText", "x"), ("yText", "y")),
            *(("interval", "95 % interval"), ("place", "frontier"), ("source", "source")),
        )
    ]
    base = alt.Chart(alt.NamedData(name="points"))
    on = base.transform_filter("datum.frontier")
    line = on.mark_line(interpolate="step-after", strokeDash=[4, 3], color=DOMINATED).encode(
        x=x, y=y, detail="group:N", order="x:Q"
    )
    interval = (
        on.transform_filter("datum.low !== null")
        .mark_rule(opacity=0.5)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q")
        .properties(name="intervals")
    )
    estimate = (
        on.transform_filter("datum.least !== null")
        .mark_rule(opacity=0.5)
        .encode(x=alt.X("least:Q"), x2="x:Q", y=y)
        .properties(name="estimates")
    )
    dominated = (
        base.transform_filter("!datum.frontier")
        .mark_point(color=DOMINATED, opacity=0.7, size=45)
        .encode(x=x, y=y, shape=_shape(alt), tooltip=tooltip)
        .properties(name="dominated")
    )
    best = on.mark_point(filled=True, size=110, opacity=1).encode(
        x=x,
        y=y,
        shape=_shape(alt),
        color=alt.Color("scheme:N", scale=alt.Scale(range=list(COLOURS)), legend=alt.Legend(title="on the frontier")),
        tooltip=tooltip,
    )
    return _specification(
        alt.layer(line, interval, estimate, dominated, best).properties(width="container", height=340)
    )


def _shape(alt: Any) -> Any:
    return alt.Shape("scheme:N", scale=alt.Scale(range=list(SHAPES)), legend=alt.Legend(title="on the frontier"))


def _curves() -> dict[str, Any]:
    """Fields: epoch, panel ("loss" or "accuracy %"), images ("train" or "validation"), value."""
    import altair as alt

    base = alt.Chart(alt.NamedData(name="points"), width=300, height=180)
    images = ["train", "validation"]
    panels = [
        base.transform_filter(alt.datum.panel == panel)
        .mark_line()
        .encode(
            x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("value:Q", title=panel, scale=alt.Scale(zero=False)),
            color=alt.Color("images:N", scale=alt.Scale(domain=images, range=list(COLOURS[:2]))),
            strokeDash=alt.StrokeDash("images:N", scale=alt.Scale(domain=images, range=[[1, 0], [5, 3]])),
            tooltip=["images:N", "epoch:Q", alt.Tooltip("value:Q", title=panel, format=".4~g")],
        )
        for panel in ("loss", "accuracy %")
    ]
    return _specification(alt.concat(*panels, columns=2))


def _confusion() -> dict[str, Any]:
    """Fields: label, answer, images, share (of the label's images, in percent)."""
    import altair as alt

    base = alt.Chart(alt.NamedData(name="points")).encode(
        x=alt.X("answer:N", title="answer", sort=None, axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y("label:N", title="class", sort=None),
    )
    tooltip = ["label:N", "answer:N", "images:Q", alt.Tooltip("share:Q", title="% of the class", format=".2f")]
    squares = base.mark_rect().encode(
        color=alt.Color("share:Q", title="% of the class", scale=alt.Scale(scheme="blues", domain=[0, 100])),
        tooltip=tooltip,
    )
    texts = (
        base.transform_filter("datum.images > 0")
        .mark_text()
        .encode(
            text="images:Q",
            color=alt.condition("datum.share > 50", alt.value("white"), alt.value("black")),
            tooltip=tooltip,
        )
    )
    return _specification(alt.layer(squares, texts).properties(width=alt.Step(30), height=alt.Step(24)))
