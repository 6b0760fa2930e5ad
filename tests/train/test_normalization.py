"""Batch normalization in one operation: the same training as with Keras's own, and no trace of it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from emb.train.normalization import fused_normalization

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it is an operation of TensorFlow")

IMAGES = np.random.default_rng(0).normal(3, 2, (8, 6, 6, 4)).astype(np.float32)


def _model(normalization: Callable[..., Any], dtype: str = "float32", channels: int = 5) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(channels, 3, dtype=dtype)(inputs)
    x = normalization(x)
    x = layers.GlobalAveragePooling2D()(layers.Activation("relu", dtype=dtype)(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax", dtype="float32")(x))


def _trained(model: keras.Model, *, steps: int = 5) -> list[np.ndarray]:
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), loss="categorical_crossentropy", jit_compile=False)
    for step in range(steps):
        model.train_on_batch(IMAGES, np.eye(3, dtype=np.float32)[(np.arange(8) + step) % 3])
    return [np.array(variable) for variable in model.variables]


def _operations(model: keras.Model) -> set[str]:
    """The kinds of operations of a step in training, that of normalization with the type of its maps."""
    import tensorflow as tf

    graph = tf.function(lambda x: model(x, training=True)).get_concrete_function(IMAGES).graph
    fused = "FusedBatchNormV3"
    return {f"{fused} {one.get_attr('T').name}" if one.type == fused else one.type for one in graph.get_operations()}


@pytest.mark.parametrize(
    "arguments",
    [{}, {"scale": False}, {"center": False}, {"axis": 3, "momentum": 0.7, "epsilon": 1e-5}, {"trainable": False}],
    ids=str,
)
def test_trains_to_the_weights_of_keras(arguments: dict[str, Any]) -> None:
    expected = _trained(_model(layers.BatchNormalization(**arguments)))
    model = _model(layers.BatchNormalization(**arguments))
    with fused_normalization(model):
        fused = "FusedBatchNormV3 float32" in _operations(model)
        weights = _trained(model)
    assert fused == arguments.get("trainable", True)
    for own, keras_own in zip(weights, expected, strict=True):
        np.testing.assert_allclose(own, keras_own, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("dtype", "channels", "maps"),
    # Other than whole blocks of channels would be ten times slower in bfloat16.
    [("mixed_bfloat16", 16, "bfloat16"), ("mixed_bfloat16", 5, "float32"), ("mixed_float16", 16, "float32")],
)
def test_half_precision_keeps_statistics_in_float32(dtype: str, channels: int, maps: str) -> None:
    expected = _trained(_model(layers.BatchNormalization(dtype=dtype), dtype, channels), steps=1)
    model = _model(layers.BatchNormalization(dtype=dtype), dtype, channels)
    with fused_normalization(model):
        assert f"FusedBatchNormV3 {maps}" in _operations(model)
        weights = _trained(model, steps=1)
    for variable, own, keras_own in zip(model.variables, weights, expected, strict=True):
        assert variable.dtype == "float32" or "seed" in variable.path
        np.testing.assert_allclose(own, keras_own, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize(
    "arguments", [{"axis": 1}, {"renorm": True}, {"synchronized": True}, {"dtype": "float64"}], ids=str
)
def test_what_the_operation_cannot_do_stays_with_keras(arguments: dict[str, Any]) -> None:
    model = _model(layers.BatchNormalization(**arguments))
    with fused_normalization(model):
        assert not any("call" in vars(layer) for layer in model.layers)


def test_inner_models_are_fused_and_all_is_undone_after_an_error() -> None:
    inner = _model(layers.BatchNormalization())
    model = keras.Model(inner.inputs[0], inner(inner.inputs[0]))
    images = IMAGES[:2]
    before = np.array(model(images, training=False))
    fused = ExitStack()
    fused.enter_context(fused_normalization(model))
    assert "FusedBatchNormV3 float32" in _operations(model)
    np.testing.assert_array_equal(np.array(model(images, training=False)), before)
    with pytest.raises(KeyError), fused:
        raise KeyError
    assert "FusedBatchNormV3 float32" not in _operations(model)
    assert not any("call" in vars(layer) for layer in inner.layers)
