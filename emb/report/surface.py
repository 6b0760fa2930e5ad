"""Draws the loss around a trained model. Knows no model: the values are handed in, and nothing is interpolated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emb.report.chart import Drawing, render

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# One scale for all pictures, so that two networks compare at sight. A class that is given a probability of 1e-7 costs
# 16.1 nats; what is learned by heart lies below 0.01.
_LOWEST, _HIGHEST = 0.01, 16.2
_SIDE = 400


def draw_loss_surface(steps: NDArray[np.float64], loss: NDArray[np.float64], *, title: str) -> Drawing:
    """A square for every point, coloured by its loss on a logarithmic scale, and a cross at the model itself.

    steps: (points,) float, ascending and evenly spaced, along both directions.  loss: (points, points) float, in nats,
    loss[i, j] at steps[i] of the first (to the right) and steps[j] of the second direction (upwards).
    The scale is the same in every picture, from 0.01 to 16.2; lower losses have the colour of 0.01.
    """
    import altair as alt

    half = (steps[1] - steps[0]) / 2
    points = [
        {
            "left": float(x - half),
            "right": float(x + half),
            "lower": float(y - half),
            "upper": float(y + half),
            "loss": float(loss[i, j]),
        }
        for i, x in enumerate(steps)
        for j, y in enumerate(steps)
    ]
    edges = alt.Scale(domain=[float(steps[0] - half), float(steps[-1] + half)], nice=False)
    heat = (
        alt.Chart(alt.Data(values=points), width=_SIDE, height=_SIDE)
        .mark_rect()
        .encode(
            x=alt.X("left:Q", title="along the first direction", scale=edges),
            x2="right:Q",
            y=alt.Y("lower:Q", title="along the second direction", scale=edges),
            y2="upper:Q",
            color=alt.Color(
                "loss:Q",
                title="loss",
                scale=alt.Scale(type="log", domain=[_LOWEST, _HIGHEST], clamp=True, scheme="viridis"),
                legend=alt.Legend(gradientLength=_SIDE - 40, values=[0.01, 0.1, 1, 10]),
            ),
        )
    )
    model = (
        alt.Chart(alt.Data(values=[{"x": 0, "y": 0}]))
        .mark_point(shape="cross", size=80, color="white", filled=True)
        .encode(x="x:Q", y="y:Q")
    )
    middle = len(steps) // 2
    subtitle = f"{loss[middle, middle]:.3g} at the model, {loss.min():.3g} to {loss.max():.3g} around it"
    return render(alt.layer(heat, model).properties(title=alt.TitleParams(title, subtitle=subtitle)))
