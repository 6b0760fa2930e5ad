"""Zero padding before max pooling: inside the pooling where that changes nothing, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from keras import layers

from emb.export import onnx as onnx_export
from emb.quantize import SCHEMES, quantize_onnx

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 13, 13, 3)).astype(np.uint8)


def _model(*, activation: str | None = "relu", padding: Any = 1, pool: int = 3) -> Any:
    """A convolution with small and negative outputs, padded with zeros and pooled."""
    keras.utils.set_random_seed(0)
    image = keras.Input((13, 13, 3))
    x = layers.Conv2D(4, 3, name="conv", bias_initializer=keras.initializers.Constant(-0.5))(
        layers.Rescaling(1 / 255)(image)
    )
    x = layers.ReLU(name="relu")(x) if activation == "relu" else x
    x = layers.MaxPooling2D(pool, strides=2, name="pool")(layers.ZeroPadding2D(padding, name="pad")(x))
    return keras.Model(image, layers.Dense(5, name="scores")(layers.Flatten()(x)))


def _kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("padding", [1, ((1, 0), (2, 1))])
def test_it_goes_into_a_pooling_behind_relu(padding: Any, run: Any, tmp_path: Path) -> None:
    model = _model(padding=padding)
    onnx_export.export(model, tmp_path / "model.onnx")
    assert "Pad" not in _kinds(tmp_path / "model.onnx")
    wanted = model.predict(IMAGES[:8].astype(np.float32), verbose=0)
    np.testing.assert_allclose(run(tmp_path / "model.onnx", IMAGES[:8]), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [{"activation": None}, {"padding": 3}, {"padding": ((0, 3), (0, 0))}],
    ids=["negative values, which zeros exceed", "windows of zeros alone", "windows of zeros at one side"],
)
def test_it_stays_where_it_decides_a_maximum(fields: Any, run: Any, tmp_path: Path) -> None:
    model = _model(**fields)
    onnx_export.export(model, tmp_path / "model.onnx")
    assert "Pad" in _kinds(tmp_path / "model.onnx")
    wanted = model.predict(IMAGES[:8].astype(np.float32), verbose=0)
    np.testing.assert_allclose(run(tmp_path / "model.onnx", IMAGES[:8]), wanted, atol=1e-5)


def test_the_int8_file_runs_without_floats_between(run: Any, tmp_path: Path) -> None:
    onnx_export.export(_model(), tmp_path / "model.onnx")
    scheme = SCHEMES.get("int8").SCHEME
    quantize_onnx(tmp_path / "model.onnx", tmp_path / "int8.onnx", scheme=scheme, calibration=IMAGES)
    run(tmp_path / "int8.onnx", IMAGES[:1], optimized=tmp_path / "optimized.onnx")
    assert not {"Pad", "QuantizeLinear", "DequantizeLinear"} & set(_kinds(tmp_path / "optimized.onnx"))
