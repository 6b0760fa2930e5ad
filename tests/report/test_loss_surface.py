"""The drawn loss surface: a square for every point, colours that mean the same in every picture."""

from __future__ import annotations

import re

import numpy as np

from emb.report.surface import draw_loss_surface

STEPS = np.array([-1.0, 0.0, 1.0])


def colours(loss: list[list[float]]) -> list[str]:
    """Of the squares, column by column, each from below."""
    svg = draw_loss_surface(STEPS, np.array(loss), title="lenet").svg
    return re.findall(r'aria-roledescription="rect mark"[^>]*fill="([^"]*)"', svg)


def test_every_point_has_its_colour():
    drawn = colours([[0.02, 0.1, 0.1], [1.0, 0.1, 0.1], [10.0, 0.1, 0.1]])
    assert len(drawn) == 9
    assert len(set(drawn)) == 4
    assert drawn[1] == drawn[2] == drawn[4]


def test_a_colour_means_the_same_in_every_picture():
    first, second = (colours([[other] * 3, [0.5] * 3, [other] * 3]) for other in (0.02, 12.0))
    assert first[3:6] == second[3:6]
    assert first[:3] != second[:3]


def test_a_loss_of_nothing_has_the_lowest_colour():
    assert len(set(colours([[0.0] * 3, [0.01] * 3, [0.001] * 3]))) == 1


def test_the_figures_stand_above():
    loss = np.full((3, 3), 2.0)
    loss[1, 1] = 0.25
    loss[0, 2] = 8.0
    svg = draw_loss_surface(STEPS, loss, title="lenet").svg
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"lenet", "0.25 at the model, 0.25 to 8 around it"} <= set(texts)
