"""What [train] and [train.augment] refuse, in whole messages, and all of it at once."""

from __future__ import annotations

import pytest

from emb.errors import SpecError
from emb.spec.decode import decode
from emb.spec.recipe import Augmentation, TrainSpec

WRONG = [
    ("learning_rate", 0.0, "learning_rate must be above 0"),
    ("learning_rate", float("nan"), "learning_rate must be above 0"),
    ("momentum", 1.0, "momentum must lie in [0, 1)"),
    ("weight_decay", -0.1, "weight_decay must not be negative"),
    ("decay_factor", 1.0, "decay_factor must lie between 0 and 1"),
    ("decay_epochs", 0, "decay_epochs must be at least 1"),
    ("patience_epochs", 0, "patience_epochs must be at least 1"),
    ("warmup_epochs", -1, "warmup_epochs must not be negative"),
    ("warmup_learning_rate", -0.1, "warmup_learning_rate must not be negative"),
    ("freeze_epochs", -1, "freeze_epochs must not be negative"),
    ("freeze_learning_rate", 0.0, "freeze_learning_rate must be above 0"),
    ("epochs", -1, "epochs must not be negative"),
    ("early_stopping_epochs", -1, "early_stopping_epochs must not be negative"),
    ("batch_size", 0, "batch_size must be at least 1"),
    ("ema_momentum", 1.0, "ema_momentum must lie in [0, 1)"),
    ("label_smoothing", 1.0, "label_smoothing must lie in [0, 1)"),
    ("seed", -1, "seed must lie in [0, 2**32)"),
]
WRONG_CHANGES = [
    ("shift_fraction", 1.0, "shift_fraction must lie in [0, 1)"),
    ("scale_fraction", 1.0, "scale_fraction must lie in [0, 1)"),
    ("rotation_degrees", 181.0, "rotation_degrees must lie in [0, 180]"),
    ("shear_degrees", 90.0, "shear_degrees must lie in [0, 90)"),
    ("crop_pixels", -1, "crop_pixels must not be negative"),
    ("crop_area_fraction", 1.5, "crop_area_fraction must lie in [0, 1]"),
    ("brightness_fraction", 1.5, "brightness_fraction must lie in [0, 1]"),
    ("contrast_fraction", -0.5, "contrast_fraction must lie in [0, 1]"),
    ("saturation_fraction", 1.5, "saturation_fraction must lie in [0, 1]"),
    ("cutout_pixels", -1, "cutout_pixels must not be negative"),
    ("mixup_alpha", float("inf"), "mixup_alpha must be a number that is not negative"),
]


@pytest.mark.parametrize(("field", "value", "message"), WRONG)
def test_refused(field, value, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        TrainSpec(**{field: value})
    assert str(caught.value) == message


@pytest.mark.parametrize(("field", "value", "message"), WRONG_CHANGES)
def test_refused_change(field, value, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Augmentation(**{field: value})
    assert str(caught.value) == message


def test_all_faults_of_a_recipe_at_once():
    text = "epochs = -1\nprecision = 'mixed_bfloat61'\n[augment]\ncrop_pixels = -4\nmixup_alpha = -1\n"
    table = {"epochs": -1, "precision": "mixed_bfloat61", "augment": {"crop_pixels": -4, "mixup_alpha": -1}}
    with pytest.raises(SpecError) as caught:
        decode(TrainSpec, table, source="own.toml", text=text)
    assert str(caught.value) == (
        "own.toml has 3 faults\n"
        "  why: line 2, precision: must be one of 'float32', 'mixed_bfloat16', 'mixed_float16', "
        "not 'mixed_bfloat61'; did you mean 'mixed_bfloat16'?\n"
        "       line 4, augment.crop_pixels: must not be negative\n"
        "       line 5, augment.mixup_alpha: must be a number that is not negative\n"
        "  fix: correct them and try again"
    )
