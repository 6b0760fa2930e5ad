"""Drawings hold what they were given; the section of the report shows the epochs."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from emb.report.curves import draw_gradient_norms, draw_training, training_section


def epochs(count: int) -> list[dict[str, float | None]]:
    return [
        {
            "loss": 2 / number,
            "accuracy": 1 - 1 / (number + 1),
            "validation_accuracy": 1 - 0.9 / (number + 1),
            "learning_rate": 0.01,
            "seconds": 1.5,
        }
        for number in range(1, count + 1)
    ]


def labels_of(svg: str) -> list[str]:
    """The texts in a drawing."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def lines_of(svg: str) -> list[int]:
    """How many points each line has."""
    paths = re.findall(r'aria-roledescription="line mark"[^>]* d="([^"]*)"', svg)
    return [path.count("L") + 1 for path in paths]


@pytest.mark.slow
def test_a_training_has_a_panel_for_each_figure():
    drawing = draw_training(epochs(5), title="lenet")
    assert {"lenet", "epoch", "loss", "accuracy %", "learning rate", "train", "validation"} <= set(
        labels_of(drawing.svg)
    )
    # loss, accuracy of train and validation images, learning rate
    assert lines_of(drawing.svg) == [5, 5, 5, 5]


@pytest.mark.slow
def test_both_files_show_the_same_picture():
    drawing = draw_training(epochs(3), title="lenet")
    width, height = map(float, re.search(r'width="([\d.]+)" height="([\d.]+)"', drawing.svg).groups())
    picture = Image.open(io.BytesIO(drawing.png))
    assert picture.format == "PNG"
    assert picture.size == pytest.approx((2 * width, 2 * height), abs=2)
    assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 3


def test_one_epoch_and_what_is_no_number_are_no_error():
    one = [*epochs(1), {**epochs(1)[0], "loss": float("nan"), "validation_accuracy": None}]
    assert lines_of(draw_training(one, title="lenet").svg) == [1, 2, 1, 2]


def test_gradient_norms_are_drawn_from_input_to_output_on_a_logarithmic_axis():
    layers = ("conv1", "dense2", "a-last-one")
    norms = np.array([[1e-6, 1e-3, 1.0]] * 4, np.float32)
    drawing = draw_gradient_norms(layers, norms, title="deep")
    texts = labels_of(drawing.svg)
    assert [text for text in texts if text in layers] == list(layers)
    assert {"1e-6", "1e-3", "1e+0"} <= set(texts)
    assert lines_of(drawing.svg) == [4, 4, 4]


def test_many_layers_are_told_apart_by_their_depth():
    layers = tuple(f"conv{number}" for number in range(56))
    drawing = draw_gradient_norms(layers, np.full((3, 56), 0.1, np.float32), title="deep")
    assert not set(layers) & set(labels_of(drawing.svg))
    assert {"10", "50"} <= set(labels_of(drawing.svg))
    assert len(lines_of(drawing.svg)) == 56


def test_what_a_drawing_leaves_out_it_says():
    norms = np.full((600, 2), 0.1, np.float32)
    norms[0, 0] = 0.0
    norms[3, 1] = np.nan
    told = labels_of(draw_gradient_norms(("a", "b"), norms, title="deep").svg)
    assert "one step in 3; 2 of 400 norms are 0 or not finite and not shown" in told
    whole = labels_of(draw_gradient_norms(("a", "b"), norms[10:20], title="deep").svg)
    assert not any("step in" in text or "shown" in text for text in whole)


def test_equal_trainings_give_equal_files():
    first, second = (draw_training(epochs(4), title="lenet") for _ in range(2))
    assert first == second


def test_the_section_of_a_short_training_has_every_epoch():
    text = training_section(epochs(2), image="training.svg")
    assert text == (
        "\n## Training\n\n![Training curves](training.svg)\n\n"
        "| epoch | loss | accuracy % | validation accuracy % | learning rate | seconds |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| 1 | 2.0000 | 50.00 | 55.00 | 0.01 | 1.5 |\n"
        "| 2 | 1.0000 | 66.67 | 70.00 | 0.01 | 1.5 |\n"
    )


@pytest.mark.parametrize("count", [13, 30, 200])
def test_the_section_of_a_long_training_has_twelve_epochs_with_both_ends(count: int):
    text = training_section(epochs(count), image="training.svg")
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)]
    assert len(numbers) == 12
    assert sorted(set(numbers)) == numbers
    assert (numbers[0], numbers[-1]) == (1, count)
    assert f"12 of {count} epochs; all of them stand in `history.json`." in text


def test_no_training_no_section():
    assert training_section([], image="training.svg") == ""
