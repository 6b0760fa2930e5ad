"""Every recipe: a narrow version, trained briefly on digits, becomes int8 TFLite and ONNX that agree with Keras."""

from __future__ import annotations

import gc
from inspect import signature

import pytest

from emb.pipeline import measuring
from emb.pipeline.build import build
from emb.pipeline.recipes import load_recipe, recipe_names
from emb.zoo import ZOO

pytestmark = pytest.mark.slow

# Those that take seconds; `make test-family` builds the others.
IN_CI = {"lenet", "mnist-cnn"}

# Eight epochs teach most of them enough, and a GoogLeNet, whose epochs take long, knows most digits after four. A
# network that guesses changes its guess with every rounding, so that these need more: very deep ones at a quarter of
# their width.
EPOCHS = {
    "googlenet": 4,
    **dict.fromkeys(("inception-v3", "inception-v3-cifar10", "resnet101", "resnet152"), 12),
    **dict.fromkeys(("resnet8-cifar10", "resnet20-cifar10"), 12),
    **dict.fromkeys(("resnet44-cifar10", "resnet56-cifar10"), 20),
    **dict.fromkeys(("plain20-cifar10", "resnet110-cifar10"), 30),
    **dict.fromkeys(("inception-v4", "inception-v4-cifar10"), 40),
    "plain56-cifar10": 100,
}

# These learn the 1,300 images by heart before they learn digits.
AFFINE = {
    "train.augment.shift_fraction": 0.1,
    "train.augment.rotation_degrees": 10.0,
    "train.augment.scale_fraction": 0.1,
}
MORE = {
    **dict.fromkeys(("inception-v4", "inception-v4-cifar10", "resnet110-cifar10"), AFFINE),
    # 56 layers without shortcuts: at a quarter of its width it stays at chance.
    "plain56-cifar10": AFFINE | {"model.arguments.width": 1.0, "train.learning_rate": 0.003, "train.warmup_epochs": 5},
}


def _parameter(name):
    return name if name in IN_CI else pytest.param(name, marks=pytest.mark.family)


RECIPES = [_parameter(name) for name in recipe_names()]

LEAST_AGREEMENT = 0.97

# What the recipe's own hyperparameters, made for other data, would not do within a minute.
BRIEFLY = {
    "data.name": "digits",
    "data.path": "",
    "data.validation_fraction": 0.1,
    "input.shape": [16, 16, 3],
    "train.optimizer": "adam",
    "train.learning_rate": 0.001,
    "train.schedule": "cosine",
    "train.warmup_epochs": 1,
    "train.warmup_learning_rate": 0.0,
    "train.weight_decay": 0.0,
    "train.ema_momentum": 0.0,
    "train.batch_size": 32,
    "train.epochs": 8,
    "train.augment.flip": False,
    "train.augment.crop_pixels": 0,
    "train.augment.crop_area_fraction": 0.0,
    "train.augment.brightness_fraction": 0.0,
    "train.augment.contrast_fraction": 0.0,
    "train.augment.saturation_fraction": 0.0,
    "quantize.schemes": "float16,int8",
    "export.formats": "tflite,onnx",
}


def test_those_in_ci_are_there():
    assert set(recipe_names()) >= IN_CI


def _narrow(builder):
    """A quarter of the width; no dropout, with which deep networks without normalization need longer to begin.

    LeNet is narrow as it is.
    """
    if builder == "lenet":
        return {}
    wanted = {"width": 0.25, "dropout": 0.0}
    known = signature(ZOO.get(builder).build).parameters
    return {f"model.arguments.{name}": value for name, value in wanted.items() if name in known}


@pytest.fixture(autouse=True)
def _no_time_is_measured(monkeypatch):
    monkeypatch.setattr(measuring, "WARM_UP_S", 0.0)
    monkeypatch.setattr(measuring, "MEASURE_S", 0.0)
    monkeypatch.setattr(measuring, "LEAST_RUNS", 1)
    yield
    import keras

    keras.backend.clear_session()
    gc.collect()


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds_int8_files_that_agree_with_keras(name, tmp_path):
    recipe = load_recipe(name)
    wanted = BRIEFLY | _narrow(recipe.model.builder)
    wanted |= {"train.epochs": EPOCHS.get(name, wanted["train.epochs"])} | MORE.get(name, {})
    report = build(name, overrides=wanted, output_directory=tmp_path / "build")
    assert not report.errors
    assert {(row.format, row.scheme) for row in report.rows} == {
        ("tflite", "float32"),
        ("tflite", "float16"),
        ("onnx", "float16"),
        ("tflite", "int8"),
        ("onnx", "int8"),
    }
    # A model that knows nothing gives one class to all, and then everything agrees.
    assert report.reference_accuracy > 0.5
    for row in report.rows:
        assert row.agreement >= LEAST_AGREEMENT, f"{row.file} on {row.runtime} ({row.mode})"
