"""The loss surface: its middle is the model, its directions are as long as the filters, the model stays as it was."""

from __future__ import annotations

import numpy as np
import pytest

from emb.errors import SpecError
from emb.spec.dataset import Split
from emb.train.surface import _direction, loss_surface


@pytest.fixture(scope="module")
def model():
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(1)
    return Split(images=rng.integers(0, 256, (700, 6, 6, 1), dtype=np.uint8), labels=rng.integers(0, 3, 700))


def _weights(model):
    return [np.array(variable) for variable in model.trainable_variables]


def test_the_middle_is_the_models_own_loss(model, split):
    scores = model.predict(split.images.astype(np.float32), verbose=0)
    own = -np.log(scores[np.arange(700), split.labels]).mean()
    surface = loss_surface(model, split, rng=np.random.default_rng(0), points=3)
    assert surface.loss[1, 1] == pytest.approx(own, rel=1e-5)
    np.testing.assert_array_equal(surface.steps, [-1, 0, 1])


def test_the_model_is_left_as_it_was(model, split):
    before = _weights(model)
    loss_surface(model, split, rng=np.random.default_rng(0), points=3)
    for a, b in zip(before, _weights(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_model_is_left_as_it_was_when_something_fails(model, split):
    before = _weights(model)
    unfit = Split(images=split.images[:, :5], labels=split.labels)
    with pytest.raises(Exception):  # noqa: B017, PT011  keras's own, whatever its kind
        loss_surface(model, unfit, rng=np.random.default_rng(0), points=3)
    for a, b in zip(before, _weights(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_corner_is_the_loss_of_the_weights_that_lie_there(model, split):
    import keras

    surface = loss_surface(model, split, rng=np.random.default_rng(5), points=3, span=0.5)
    rng = np.random.default_rng(5)
    moved = keras.models.clone_model(model)
    moved.set_weights(model.get_weights())
    kernels = [variable for variable in moved.trainable_variables if len(variable.shape) > 1]
    centre = [np.array(kernel) for kernel in kernels]
    first = [_direction(weight, rng) for weight in centre]
    second = [_direction(weight, rng) for weight in centre]
    for kernel, weight, one, other in zip(kernels, centre, first, second, strict=True):
        kernel.assign(weight + 0.5 * one - 0.5 * other)
    scores = moved.predict(split.images.astype(np.float32), verbose=0)
    expected = -np.log(scores[np.arange(700), split.labels].clip(1e-7)).mean()
    assert surface.loss[2, 0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(3, 3, 2, 5), (7, 4)])
def test_each_filter_of_a_direction_is_as_long_as_the_models(shape):
    rng = np.random.default_rng(2)
    weight = (rng.standard_normal(shape) * np.arange(1, shape[-1] + 1)).astype(np.float32)
    direction = _direction(weight, rng)
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose((direction**2).sum(axes), (weight**2).sum(axes), rtol=1e-5)


def test_a_filter_of_zeros_stays():
    weight = np.ones((3, 3, 2, 2), np.float32)
    weight[..., 1] = 0
    assert not _direction(weight, np.random.default_rng(0))[..., 1].any()


@pytest.mark.parametrize("points", [1, 2, 20])
def test_points_must_have_a_middle(model, split, points):
    with pytest.raises(SpecError) as caught:
        loss_surface(model, split, rng=np.random.default_rng(0), points=points)
    assert str(caught.value) == (
        f"a loss surface cannot have {points} points to a side\n"
        "  why: the model itself stands in its middle\n"
        "  fix: give an odd number of at least 3, e.g. 21"
    )


def test_span_must_be_positive(model, split):
    with pytest.raises(SpecError, match="must be above 0, not 0"):
        loss_surface(model, split, rng=np.random.default_rng(0), span=0.0)
