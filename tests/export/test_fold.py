"""Folding the scaling into the first weights: equal to the model, and only where it can be."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3)).astype(np.float32)


def _model(*stack: Any) -> Any:
    image = keras.Input((12, 12, 3))
    x = image
    for layer in stack:
        x = layer(x)
    return keras.Model(image, x)


def _normalization() -> Any:
    return layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[2500.0, 3000.0, 3500.0])


def _batch_norm() -> Any:
    layer = layers.BatchNormalization()
    layer.build((None, 12, 12, 3))
    layer.set_weights(
        np.array([[0.5, 1.0, 1.5], [0.1, -0.2, 0.3], [100.0, 110.0, 120.0], [2000.0, 3000.0, 4000.0]], np.float32)
    )
    return layer


def _foldable() -> dict[str, Any]:
    return {
        "scale before padded convolution": _model(layers.Rescaling(1 / 255), layers.Conv2D(4, 3, padding="same")),
        "offset before unpadded convolution": _model(layers.Rescaling(1 / 127.5, -1), layers.Conv2D(4, 3)),
        "per channel": _model(_normalization(), layers.Conv2D(4, 3, use_bias=False)),
        "two in a row": _model(layers.Rescaling(1 / 255), layers.Rescaling(2.0, -1.0), layers.Conv2D(4, 3)),
        "batch normalization": _model(_batch_norm(), layers.Conv2D(4, 3)),
        "depthwise": _model(_normalization(), layers.DepthwiseConv2D(3, depth_multiplier=2)),
        "grouped": _model(_normalization(), layers.Conv2D(6, 3, groups=3)),
        "dense": _model(_normalization(), layers.Flatten(), layers.Dense(5)),
        "augmentation and dropout between": _model(
            layers.RandomFlip(), layers.Rescaling(1 / 255), layers.Dropout(0.5), layers.Conv2D(4, 3)
        ),
        "zero padding between": _model(
            layers.Rescaling(1 / 255), layers.ZeroPadding2D(2), layers.Conv2D(4, 3, strides=2), layers.Flatten()
        ),
        "sequential grown layer by layer": _sequential(),
        "inside an inner model": _model(layers.Rescaling(1 / 127.5, -1), _inner(), layers.Dense(3)),
    }


def _sequential() -> Any:
    model = keras.Sequential()
    for layer in (keras.Input((12, 12, 3)), layers.Rescaling(1 / 255), layers.Conv2D(4, 3), layers.Flatten()):
        model.add(layer)
    return model


def _inner() -> Any:
    image = keras.Input((12, 12, 3))
    return keras.Model(image, layers.Flatten()(layers.Conv2D(4, 3)(image)))


@pytest.fixture(scope="module")
def foldable() -> dict[str, Any]:
    keras.utils.set_random_seed(3)
    return _foldable()


@pytest.mark.parametrize(
    "name",
    [
        "scale before padded convolution",
        "offset before unpadded convolution",
        "per channel",
        "two in a row",
        "batch normalization",
        "depthwise",
        "grouped",
        "dense",
        "augmentation and dropout between",
        "zero padding between",
        "sequential grown layer by layer",
        "inside an inner model",
    ],
)
def test_folded_model_equals_the_model(foldable: dict[str, Any], name: str) -> None:
    from emb.export._fold import folded

    model = foldable[name]
    expected = np.asarray(model(IMAGES, training=False))
    call = folded(model)
    assert call is not None
    np.testing.assert_allclose(np.asarray(call(IMAGES)), expected, rtol=1e-5, atol=2e-5)
    # The model is as it was, and can be folded again.
    np.testing.assert_array_equal(np.asarray(model(IMAGES, training=False)), expected)
    again = folded(model)
    assert again is not None
    np.testing.assert_array_equal(np.asarray(again(IMAGES)), np.asarray(call(IMAGES)))


def _unfoldable() -> dict[str, Any]:
    image = keras.Input((12, 12, 3))
    scaled = layers.Rescaling(1 / 255)(image)
    both = layers.Add()([layers.Conv2D(3, 1)(scaled), scaled])
    return {
        "moved and padded": _model(layers.Rescaling(1 / 127.5, -1), layers.Conv2D(4, 3, padding="same")),
        "moved, then zero padding": _model(
            layers.Rescaling(1 / 127.5, -1), layers.ZeroPadding2D(1), layers.Conv2D(4, 3)
        ),
        "read twice": keras.Model(image, both),
        "nothing to fold": _model(layers.Conv2D(4, 3)),
        "no weights behind": _model(layers.Rescaling(1 / 255), layers.MaxPooling2D(2)),
    }


@pytest.mark.parametrize(
    "name", ["moved and padded", "moved, then zero padding", "read twice", "nothing to fold", "no weights behind"]
)
def test_what_cannot_be_exact_is_left_alone(name: str) -> None:
    from emb.export._fold import folded

    assert folded(_unfoldable()[name]) is None


def test_pixels_of_a_model_without_rescaling_are_folded_in() -> None:
    from emb.export._fold import Affine, folded

    model = _model(layers.Conv2D(4, 3), layers.Flatten())
    call = folded(model, Affine(scale=np.full(1, 2 / 255), offset=np.full(1, -1.0)))
    assert call is not None
    expected = np.asarray(model(IMAGES * np.float32(2 / 255) - 1, training=False))
    np.testing.assert_allclose(np.asarray(call(IMAGES)), expected, rtol=1e-5, atol=2e-5)
