"""max(x, limit) before a convolution in integers: no scale of its own, its limits on the grid, the rest in the bias."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

from emb.export import onnx as onnx_export
from emb.export import tflite as tflite_export
from emb.graph.files import read
from emb.graph.model import Graph, Operation
from emb.quantize import SCHEMES, quantize_onnx, quantize_tflite
from emb.quantize._limits import StoredLimits, bias_for_limits, on_weight_grid, stored_limits
from emb.quantize._ranges import Range

EXPORTS = {"tflite": tflite_export, "onnx": onnx_export}
CONVERTERS = {"tflite": quantize_tflite, "onnx": quantize_onnx}
IMAGES = np.random.default_rng(0).integers(0, 256, (32, 12, 12, 3), dtype=np.uint8)


@given(
    limits=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=9),
    lowest=st.floats(-20, 0, width=32),
    highest=st.floats(0.125, 20, width=32),
    is_16=st.booleans(),
)
def test_limits_lie_on_the_grid_of_the_range(limits: list[float], lowest: float, highest: float, is_16: bool) -> None:
    levels, wide = (65_536, max(-lowest, highest)) if is_16 else (256, highest)
    step = wide / 32_767 if is_16 else (highest - lowest) / 255
    found = stored_limits(
        np.array(limits, np.float32), Range(lowest=lowest, highest=highest), levels=levels, symmetric=is_16
    )
    codes = found.on_grid / step
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-6)
    assert np.ptp(codes) <= levels - 1 + 1e-6
    for limit, on_grid, exact, stored in zip(limits, found.on_grid, found.exact, found.stored, strict=True):
        if limit > wide + step:  # nothing passes, and what all values become is the grid's own end
            assert on_grid == pytest.approx(wide, abs=step)
            assert (exact, stored) == (limit, on_grid)
        elif limit < (-wide if is_16 else lowest) - step:  # all pass
            assert exact == stored == on_grid
        else:
            assert abs(on_grid - limit) <= step * (1 + 1e-6)
            assert stored == pytest.approx((exact + on_grid) / 2) or stored == on_grid


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bits", [4, 8, None])
def test_the_bias_makes_up_for_limits_and_rounded_weights(groups: int, bits: int | None) -> None:
    rng = np.random.default_rng(groups)
    weights = rng.normal(size=(8, 8 // groups, 3, 3)).astype(np.float32)
    bias, exact = rng.normal(size=8).astype(np.float32), rng.normal(size=8)
    limits = StoredLimits(on_grid=exact, exact=exact, stored=exact + rng.normal(size=8) / 10)
    rounded = weights if bits is None else on_weight_grid(weights, bits=bits)
    new = bias_for_limits(weights, bias, limits, bits=bits)

    def summed(kernel: Any, values: Any) -> Any:
        parts = np.split(values, groups)
        per_group = np.split(kernel.astype(np.float64), groups)
        pairs = zip(per_group, parts, strict=True)
        return np.concatenate([np.einsum("mcij,c->m", kernels, part) for kernels, part in pairs])

    np.testing.assert_allclose(summed(rounded, limits.stored) + new, summed(weights, exact) + bias, atol=1e-5)


def _model(*, shift: float = 0.0) -> keras.Model:
    """Two limits; shift: of the first channel's normalization, by which all or none of its values pass."""
    keras.utils.set_random_seed(4)
    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, name="stem")(layers.Rescaling(1 / 255)(image))
    for name in ("first", "second"):
        y = layers.ReLU()(layers.BatchNormalization(name=f"{name}_norm")(x))
        y = layers.Conv2D(8, 1, use_bias=False, name=f"{name}_narrow")(y)
        x = layers.AveragePooling2D(2)(layers.Concatenate()([x, y]))
    scores = layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, scores)
    rng = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    beta = model.get_layer("first_norm").beta
    beta.assign(ops.add(beta, [shift] + [0.0] * 7))
    return model


def _quantized(model: keras.Model, folder: Path, file_format: str, *, scheme: str = "int8", **more: Any) -> Path:
    path, out = folder / f"float.{file_format}", folder / f"{scheme}.{file_format}"
    EXPORTS[file_format].export(model, path)
    CONVERTERS[file_format](path, out, scheme=SCHEMES.get(scheme).SCHEME, calibration=IMAGES, **more)
    return out


def _maxima(graph: Graph) -> list[Operation]:
    return [operation for operation in graph.operations if operation.kind == "MAXIMUM"]


@pytest.mark.parametrize("file_format", EXPORTS)
@pytest.mark.parametrize("shift", [0.0, -10.0, 10.0])
def test_a_limit_is_one_comparison_of_integers(shift: float, file_format: str, run: Any, tmp_path: Path) -> None:
    model = _model(shift=shift)
    path = _quantized(model, tmp_path, file_format)
    graph = read(path)
    maxima = _maxima(graph)
    assert len(maxima) == 2
    assert all("int8" in graph.tensors[index].dtype for one in maxima for index in (*one.inputs, *one.outputs))
    kinds = {operation.kind for operation in graph.operations}
    assert not kinds & {"DEPTHWISE_CONV_2D", "MUL", "ADD", "SUB"}
    expected = np.asarray(model(IMAGES.astype(np.float32), training=False))
    assert np.abs(run(path, IMAGES) - expected).max() < 0.02


@pytest.mark.parametrize("scheme", ["int8", "int8-uint8", "int16x8", "int4w"])
def test_in_tflite_it_has_its_inputs_scale(scheme: str, run: Any, tmp_path: Path) -> None:
    model = _model()
    path = _quantized(model, tmp_path, "tflite", scheme=scheme)
    graph = read(path)
    for one in _maxima(graph):
        codes = [graph.tensors[index].quantization for index in (*one.inputs, *one.outputs)]
        assert codes[0] == codes[1] == codes[2]
        (writer,) = [other for other in graph.operations if one.inputs[0] in other.outputs]
        assert writer.kind in ("CONV_2D", "AVERAGE_POOL_2D")
    expected = np.asarray(model(IMAGES.astype(np.float32), training=False))
    assert np.abs(run(path, IMAGES) - expected).max() < (0.1 if scheme == "int4w" else 0.02)


@pytest.mark.parametrize("file_format", EXPORTS)
def test_biases_make_up_for_what_limits_lost(file_format: str, run: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """What a convolution's output is off by on the average, where one channel makes the steps of all wide."""
    model = _model()
    stem, norm = model.get_layer("stem"), model.get_layer("first_norm")
    stem.kernel.assign(stem.kernel * np.array([1.0] * 7 + [8.0], np.float32))
    seen = np.asarray(keras.Model(model.inputs[0], stem.output)(IMAGES.astype(np.float32)))
    norm.set_weights([np.ones(8), np.zeros(8), seen.mean((0, 1, 2)), seen.var((0, 1, 2))])
    # The first join, in which the stem is read a second time.
    joined = next(layer for layer in model.layers if isinstance(layer, layers.Concatenate))
    head = keras.Model(model.inputs[0], layers.Flatten()(joined.output))
    expected = np.asarray(head(IMAGES.astype(np.float32), training=False))

    def offset() -> float:
        path = _quantized(head, tmp_path, file_format)
        errors = (run(path, IMAGES) - expected).reshape(-1, 16)[:, 8:]
        return float(np.abs(errors.mean(0)).mean())

    with_biases = offset()
    module = f"emb.quantize._{file_format}_limits.bias_for_limits"
    monkeypatch.setattr(module, lambda weights, bias, limits, *, bits: bias)
    assert with_biases < 0.7 * offset()


@pytest.mark.parametrize("file_format", EXPORTS)
@pytest.mark.parametrize("kept", ["Maximum", "narrow"])
def test_beside_a_layer_in_floats(kept: str, file_format: str, run: Any, tmp_path: Path) -> None:
    model = _model()
    EXPORTS[file_format].export(model, tmp_path / f"float.{file_format}")
    graph = read(tmp_path / f"float.{file_format}")
    names = [graph.tensors[one.outputs[0]].name for one in graph.operations]
    chosen = next(name for name in names if kept in name)
    path = _quantized(model, tmp_path, file_format, kept=frozenset({chosen}))
    dtypes = {graph.tensors[index].dtype for graph in [read(path)] for one in _maxima(graph) for index in one.outputs}
    assert ("float32" in dtypes) == (kept == "Maximum")
    expected = np.asarray(model(IMAGES.astype(np.float32), training=False))
    assert np.abs(run(path, IMAGES) - expected).max() < 0.02


class _Maximum(layers.Layer):
    """Of somebody's own model: before a convolution that pads, or that reads other tensors as well."""

    def call(self, inputs: Any) -> Any:
        return ops.maximum(inputs, np.linspace(-0.3, 0.3, 8, dtype=np.float32).reshape(1, 1, 1, 8))


@pytest.mark.parametrize("file_format", EXPORTS)
def test_before_padding_a_maximum_stays_as_it_is(file_format: str, run: Any, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    image = keras.Input((12, 12, 3))
    x = _Maximum()(layers.Conv2D(8, 3)(layers.Rescaling(1 / 255)(image)))
    x = layers.Conv2D(8, 3, padding="same")(x)
    model = keras.Model(image, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    path = _quantized(model, tmp_path, file_format)
    expected = np.asarray(model(IMAGES.astype(np.float32), training=False))
    assert np.abs(run(path, IMAGES) - expected).max() < 0.02
