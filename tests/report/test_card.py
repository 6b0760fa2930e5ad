"""The model card says what the build's other documents say, and reads the same until somebody means to change it."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import pytest

from emb.report import card
from emb.spec.contract import Contract, ModelContract, Pixels, TensorContract
from emb.spec.recipe import DataSpec, ModelSpec, Recipe

GOLDEN = Path(__file__).parent.parent / "golden" / "report"

_SPEC = importlib.util.spec_from_file_location("reports", Path(__file__).with_name("test_report.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
reports = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reports)

RECIPE = Recipe(
    name="lenet",
    summary="LeNet-5: 6 and 16 maps",
    model=ModelSpec(builder="lenet", arguments={"variant": "lenet5"}),
    data=DataSpec(name="mnist"),
)
CONTRACT = Contract(
    pixels=Pixels(),
    channel_order="grey",
    labels=tuple("0123456789"),
    models=(
        ModelContract(
            file="lenet-int8.tflite",
            format="tflite",
            scheme="int8",
            sha256="ab" * 32,
            input=TensorContract(
                name="image", shape=(1, 28, 28, 1), dtype="int8", layout="NHWC", scale=1.0, zero_point=-128
            ),
            output=TensorContract(
                name="scores", shape=(1, 10), dtype="int8", layout="NC", scale=0.0039062, zero_point=-128
            ),
            scores="probabilities",
        ),
    ),
)
TOOLS = {"emb": "0.1.0", "numpy": "2.1.0", "tflite-runtime": "absent"}


@pytest.mark.golden
def test_golden() -> None:
    page = card.render(reports.AIMED, CONTRACT, RECIPE, TOOLS)
    path = GOLDEN / "model-card.md"
    if os.environ.get("EMB_REWRITE_GOLDEN"):
        path.write_text(page, encoding="utf-8")
    assert page == path.read_text(encoding="utf-8")


def test_a_model_of_one_s_own_is_told_as_that() -> None:
    recipe = replace(RECIPE, summary="", model=ModelSpec(file="mine.keras"))
    page = card.render(reports.REPORT, CONTRACT, recipe, TOOLS)
    assert "The model is mine.keras, as it was given; emb converted it." in page
    assert "emb's `" not in page


def test_many_classes_are_counted() -> None:
    contract = replace(CONTRACT, labels=tuple(f"class{number}" for number in range(1000)))
    page = card.render(reports.REPORT, contract, RECIPE, TOOLS)
    assert "into 1,000 classes: class0, class1, " in page
    assert "class19 and 980 more." in page


def test_another_way_of_reading_pixels_and_layers_in_float() -> None:
    model = replace(CONTRACT.models[0], scores="logits", float_layers=("up", "down"))
    contract = replace(CONTRACT, pixels=Pixels(scale=1 / 127.5, offset=-1.0), models=(model,))
    page = card.render(reports.REPORT, contract, RECIPE, TOOLS)
    assert "- real input value = pixel * 0.00784314 + -1, pixel in 0..255" in page
    assert "lenet-int8.tflite computes up, down in float32: not the same bits everywhere" in page
    assert "a softmax makes probabilities of logits" in page


def test_every_interval_and_digest_is_there() -> None:
    page = card.render(reports.REPORT, CONTRACT, RECIPE, TOOLS)
    for row in reports.REPORT.rows:
        if row.mode == "default" and row.accuracy is not None:
            assert f"{100 * row.accuracy_low:.2f}–{100 * row.accuracy_high:.2f}" in page
    for model in CONTRACT.models:
        assert f"`{model.sha256}`" in page
    assert "tflite-runtime absent" not in page
