"""The plain form: equal to the model, with nothing folded, nested or fused left that an exported file does not have."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from emb.errors import ModelError
from emb.export.plain import plain
from emb.zoo import ZOO

_SPEC = importlib.util.spec_from_file_location("batch_norm_cases", Path(__file__).with_name("test_batch_norm.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
_CASES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_CASES)

FAMILY: dict[str, dict[str, Any]] = {
    "lenet": {"variant": "lenet5", "activation": "tanh", "pooling": "average"},
    "resnet": {"depth": 8, "width": 0.25},
    "densenet": {"growth": 2},
    "googlenet": {"width": 0.1},
    "inception-v3": {"width": 0.1},
    "alexnet": {"width": 0.1},
}


def _kinds(model: keras.Model) -> set[str]:
    return {type(layer).__name__ for layer in model.layers}


@pytest.mark.parametrize("name", {**_CASES.BEHIND, **_CASES.APART})
def test_plain_form_equals_the_model(name: str) -> None:
    inner = _CASES._model({**_CASES.BEHIND, **_CASES.APART}[name])
    model = keras.Model(inner.inputs[0], layers.Dense(5, activation="softmax")(layers.Flatten()(inner.outputs[0])))
    expected = np.asarray(model(_CASES.IMAGES, training=False))
    form = plain(model)
    np.testing.assert_allclose(np.asarray(form(_CASES.IMAGES, training=False)), expected, rtol=2e-5, atol=1e-5)
    assert not _kinds(form) & {"Dropout", "Functional", "Sequential", "Model"}
    np.testing.assert_array_equal(np.asarray(model(_CASES.IMAGES, training=False)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_plain_form_of_the_zoo(name: str) -> None:
    keras.utils.set_random_seed(0)
    model = ZOO.get(name).build(input_shape=(32, 32, 3), classes=10, **FAMILY[name])
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.7, 1.3, weight.shape) for weight in layer.get_weights()])
    model = keras.Model(model.inputs[0], model.outputs[0])
    images = rng.integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
    form = plain(model)
    np.testing.assert_allclose(
        np.asarray(form(images, training=False)), np.asarray(model(images, training=False)), rtol=1e-4, atol=1e-5
    )
    kernels = [layer for layer in form.layers if hasattr(layer, "kernel")]
    assert all(layer.use_bias and layer.activation is keras.activations.linear for layer in kernels)
    assert not {"Rescaling", "BatchNormalization"} & _kinds(form)


def test_activations_stand_apart() -> None:
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, activation="relu", use_bias=False, name="conv")(image)
    x = layers.Dropout(0.5)(x)
    model = keras.Model(image, layers.Dense(3, activation="softmax", name="scores")(layers.Flatten(name="flatten")(x)))
    form = plain(model)
    assert [layer.name for layer in form.layers[1:]] == [
        "conv",
        "conv_activation",
        "flatten",
        "scores",
        "scores_activation",
    ]


def test_a_model_without_a_graph_is_refused() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(layers.Flatten()(x))

    with pytest.raises(ModelError) as error:
        plain(Own())
    assert "has 0 inputs and 0 outputs" in str(error.value)
