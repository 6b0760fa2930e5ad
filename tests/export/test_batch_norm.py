"""Folding BatchNormalization into its neighbours: equal to the model, and only where it can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from emb.export._batch_norm import (
    LARGEST_SPREAD,
    with_channel_relus,
    with_limits_kept,
    with_one_tap,
    without_batch_norms,
)
from emb.layers import ChannelReLU

IMAGES = np.random.default_rng(0).uniform(0, 1, (3, 10, 10, 4)).astype(np.float32)


def _model(build: Callable[[Any], Any]) -> Any:
    keras.utils.set_random_seed(5)
    image = keras.Input((10, 10, 4))
    model = keras.Model(image, build(image))
    rng = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.4, 1.6, weight.shape) for weight in layer.get_weights()])
        elif getattr(layer, "use_bias", False):
            layer.bias.assign(rng.normal(0, 0.5, layer.bias.shape))
    return model


def _norms(model: Any) -> int:
    return sum(isinstance(layer, layers.BatchNormalization) for layer in model._flatten_layers())


def _inner() -> Any:
    image = keras.Input((10, 10, 4))
    return keras.Model(image, layers.BatchNormalization()(layers.Conv2D(4, 3)(image)))


def _sequential() -> Any:
    return keras.Sequential([keras.Input((10, 10, 4)), layers.Conv2D(4, 3), layers.BatchNormalization()])


BEHIND: dict[str, Callable[[Any], Any]] = {
    "convolution without bias": lambda x: layers.BatchNormalization()(layers.Conv2D(6, 3, use_bias=False)(x)),
    "convolution with bias": lambda x: layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(x)),
    "grouped": lambda x: layers.BatchNormalization()(layers.Conv2D(8, 3, groups=2, strides=2)(x)),
    "dilated": lambda x: layers.BatchNormalization()(layers.Conv2D(8, 3, dilation_rate=2)(x)),
    "depthwise": lambda x: layers.BatchNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=3)(x)),
    "dense": lambda x: layers.BatchNormalization()(layers.Dense(7)(layers.Flatten()(x))),
    "without gamma and beta": lambda x: layers.BatchNormalization(scale=False, center=False)(layers.Conv2D(6, 3)(x)),
    "dropout between": lambda x: layers.BatchNormalization()(layers.Dropout(0.5)(layers.Conv2D(6, 3)(x))),
    "two in a row": lambda x: layers.BatchNormalization()(layers.BatchNormalization()(layers.Conv2D(6, 3)(x))),
    "before unpadded convolution": lambda x: layers.Conv2D(6, 3)(layers.BatchNormalization()(x)),
    "before padded 1x1 convolution": lambda x: layers.Conv2D(6, 1, padding="same")(layers.BatchNormalization()(x)),
    "before and behind": lambda x: layers.BatchNormalization()(layers.Conv2D(6, 3)(layers.BatchNormalization()(x))),
    "in an inner model": lambda x: layers.ReLU()(_inner()(x)),
    "in an inner Sequential": lambda x: layers.ReLU()(_sequential()(x)),
}


@pytest.mark.parametrize("name", BEHIND)
def test_folded_model_equals_the_model(name: str) -> None:
    model = _model(BEHIND[name])
    expected = np.asarray(model(IMAGES, training=False))
    lean = without_batch_norms(model)
    assert _norms(model) > _norms(lean) == 0
    np.testing.assert_allclose(np.asarray(lean(IMAGES, training=False)), expected, rtol=2e-5, atol=2e-5)
    # The model is as it was, and can be folded again.
    np.testing.assert_array_equal(np.asarray(model(IMAGES, training=False)), expected)
    assert _norms(without_batch_norms(model)) == 0


def _read_twice(x: Any) -> Any:
    y = layers.Conv2D(4, 1)(x)
    return layers.Add()([layers.BatchNormalization()(y), y])


def _shared_convolution(x: Any) -> Any:
    convolution = layers.Conv2D(4, 1)
    return layers.BatchNormalization()(convolution(layers.ReLU()(convolution(x))))


def _shared_norm(x: Any) -> Any:
    norm = layers.BatchNormalization()
    return norm(layers.Conv2D(4, 1)(norm(layers.Conv2D(4, 1)(x))))


APART: dict[str, Callable[[Any], Any]] = {
    "activation between": lambda x: layers.BatchNormalization()(layers.Conv2D(6, 3, activation="relu")(x)),
    "before ReLU, behind pooling": lambda x: layers.ReLU()(layers.BatchNormalization()(layers.MaxPooling2D(2)(x))),
    "before padded convolution": lambda x: layers.Conv2D(6, 3, padding="same")(layers.BatchNormalization()(x)),
    "read twice": _read_twice,
    "convolution called twice": _shared_convolution,
    "normalization called twice": _shared_norm,
    "along another axis": lambda x: layers.BatchNormalization(axis=1)(layers.Conv2D(6, 3)(x)),
}


@pytest.mark.parametrize("name", APART)
def test_what_cannot_be_exact_is_left_alone(name: str) -> None:
    model = _model(APART[name])
    lean = without_batch_norms(model)
    assert _norms(lean) == _norms(model)
    np.testing.assert_array_equal(np.asarray(lean(IMAGES, training=False)), np.asarray(model(IMAGES, training=False)))


def _read_behind_pooling(x: Any) -> Any:
    y = layers.MaxPooling2D(2)(x)
    return layers.Add()([layers.ReLU()(layers.BatchNormalization()(y)), y])


def _in_an_inner_model(x: Any) -> Any:
    inner = keras.Input((5, 5, 4))
    block = keras.Model(inner, layers.ReLU()(layers.BatchNormalization()(layers.MaxPooling2D(2)(inner))))
    return block(layers.MaxPooling2D(2)(x))


ONE_TAP = {name: APART[name] for name in APART if name not in ("before padded convolution", "along another axis")} | {
    "behind pooling, read twice": _read_behind_pooling,
    "without gamma and beta": lambda x: layers.BatchNormalization(scale=False, center=False)(layers.MaxPooling2D(2)(x)),
    "in an inner model": _in_an_inner_model,
}


@pytest.mark.parametrize("name", ONE_TAP)
def test_what_is_left_becomes_a_convolution_of_one_tap(name: str) -> None:
    model = _model(ONE_TAP[name])
    expected = np.asarray(model(IMAGES, training=False))
    lean = with_one_tap(model)
    assert _norms(model) > _norms(lean) == 0
    made = {layer.name: layer for layer in lean._flatten_layers() if isinstance(layer, layers.DepthwiseConv2D)}
    assert set(made) == {
        layer.name for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)
    }
    np.testing.assert_allclose(np.asarray(lean(IMAGES, training=False)), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(model(IMAGES, training=False)), expected)
    assert with_one_tap(lean) is lean


STAYS: dict[str, Callable[[Any], Any]] = {
    "of the image": APART["before padded convolution"],
    "of the scaled image": lambda x: layers.Conv2D(6, 3, padding="same")(
        layers.BatchNormalization()(layers.Rescaling(2)(x))
    ),
    "of numbers": lambda x: layers.ReLU()(layers.BatchNormalization()(layers.GlobalMaxPooling2D()(x))),
    "along another axis": APART["along another axis"],
}


@pytest.mark.parametrize("name", STAYS)
def test_what_no_convolution_of_one_tap_computes_stays(name: str) -> None:
    model = _model(STAYS[name])
    assert _norms(with_one_tap(model)) == 1


def _rectified(convolution: Callable[[], Any], relu: Callable[[], Any] = layers.ReLU) -> Callable[[Any], Any]:
    """Behind pooling, so that nothing before the normalization can take it in."""
    return lambda x: convolution()(relu()(layers.BatchNormalization(name="norm")(layers.MaxPooling2D(2)(x))))


def _in_an_inner_block(x: Any) -> Any:
    inner = keras.Input((10, 10, 4))
    return keras.Model(inner, _rectified(lambda: layers.Conv2D(6, 1))(inner))(x)


LIMITS: dict[str, Callable[[Any], Any]] = {
    "unpadded": _rectified(lambda: layers.Conv2D(6, 3)),
    "1x1, padded, without bias": _rectified(lambda: layers.Conv2D(6, 1, strides=2, padding="same", use_bias=False)),
    "grouped, with an activation": _rectified(lambda: layers.Conv2D(8, 3, groups=4, activation="relu")),
    "relu as an activation": _rectified(lambda: layers.Conv2D(6, 3), lambda: layers.Activation("relu")),
    "in an inner model": _in_an_inner_block,
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_left_where_a_convolution_behind_relu_takes_in_the_rest(name: str) -> None:
    model = _model(LIMITS[name])
    expected = np.asarray(model(IMAGES, training=False))
    lean = with_channel_relus(model)
    kept = with_limits_kept(lean)
    for one, keeps_limit in ((lean, False), (kept, True)):
        limits = {layer.name: layer for layer in one._flatten_layers() if isinstance(layer, ChannelReLU)}
        assert {name: layer.keeps_limit for name, layer in limits.items()} == {"norm": keeps_limit}
        assert not any(isinstance(layer, layers.BatchNormalization | layers.ReLU) for layer in one._flatten_layers())
        np.testing.assert_allclose(np.asarray(one(IMAGES, training=False)), expected, rtol=2e-5, atol=2e-5)
    # The model is as it was, and nothing is left to be done.
    np.testing.assert_array_equal(np.asarray(model(IMAGES, training=False)), expected)
    assert with_channel_relus(lean) is lean
    assert with_limits_kept(kept) is kept


NO_LIMITS: dict[str, Callable[[Any], Any]] = {
    "before a padded convolution": _rectified(lambda: layers.Conv2D(6, 3, padding="same")),
    "before a depthwise convolution": _rectified(lambda: layers.DepthwiseConv2D(3)),
    "before no convolution": _rectified(lambda: layers.MaxPooling2D(2)),
    "relu6": _rectified(lambda: layers.Conv2D(6, 3), lambda: layers.ReLU(6.0)),
    "leaky relu": _rectified(lambda: layers.Conv2D(6, 3), layers.LeakyReLU),
    "no relu": _rectified(lambda: layers.Conv2D(6, 3, padding="same"), layers.Identity),
    "of the image": lambda x: layers.Conv2D(6, 3)(layers.ReLU()(layers.BatchNormalization(name="norm")(x))),
    "read twice": lambda x: layers.Add()([layers.Conv2D(4, 1)(_read_behind_pooling(x)), _read_behind_pooling(x)]),
    "normalization called twice": _shared_norm,
    "one channel": lambda x: _rectified(lambda: layers.Conv2D(6, 1))(layers.DepthwiseConv2D(3)(x[..., :1])),
}


@pytest.mark.parametrize("name", NO_LIMITS)
def test_where_no_convolution_takes_in_the_rest_the_normalization_stays(name: str) -> None:
    model = _model(NO_LIMITS[name])
    assert with_channel_relus(model) is model


@pytest.mark.parametrize(
    ("scales", "is_left"),
    [
        ([1.0, 1.0, 1.0, LARGEST_SPREAD], True),
        ([1.0, 1.0, 1.0, 1.1 * LARGEST_SPREAD], False),
        ([1.0, 1.0, 1.0, 1e-3], True),
        ([1.0, 1.0, 1.0, 0.0], False),
        ([1.0, 1.0, 1.0, -1.0], False),
    ],
)
def test_scales_of_another_sign_or_size_keep_the_normalization(scales: list[float], is_left: bool) -> None:
    model = _model(LIMITS["unpadded"])
    norm = model.get_layer("norm")
    norm.set_weights([np.array(scales), np.ones(4), np.zeros(4), np.full(4, 1.0 - norm.epsilon)])
    lean = with_channel_relus(model)
    assert (_norms(lean) == 0) == is_left
    expected = np.asarray(model(IMAGES, training=False))
    np.testing.assert_allclose(np.asarray(lean(IMAGES, training=False)), expected, rtol=2e-5, atol=2e-5)
