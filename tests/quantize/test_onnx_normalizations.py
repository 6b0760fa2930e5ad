"""Normalizations that no convolution takes in are depthwise convolutions in an int8 .onnx: close, alike, fused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emb.export.onnx import border
from emb.graph.files import read
from emb.graph.sums import all_alike
from emb.quantize import SCHEMES, quantize_onnx
from emb.spec.contract import Pixels

_SHAPE = (1, 3, 12, 12)
_PIXELS = Pixels(scale=1 / 255, offset=0.0)


def _network(folder: Path, *middle: Any, **constants: np.ndarray) -> Path:
    """conv1 and the image side by side, 8 channels called `joined`; what stands in the middle makes `normal`."""
    rng = np.random.default_rng(0)
    held = {
        "first": rng.normal(size=(5, 3, 3, 3)) / 5,
        "last": rng.normal(size=(4, 8, 1, 1)) / 3,
        **constants,
    }
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["made"], name="conv1", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["made", "image"], ["joined"], name="concat", axis=1),
        *middle,
        helper.make_node("Relu", ["normal"], ["active"], name="relu"),
        helper.make_node("Conv", ["active", "last"], ["maps"], name="conv2", kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["scores"], name="flatten"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, _SHAPE)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, 4))],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, folder / "float.onnx")
    return folder / "float.onnx"


def _normalization(folder: Path, **others: np.ndarray) -> Path:
    rng = np.random.default_rng(1)
    constants = {
        "scale": rng.uniform(0.5, 1.5, 8),
        "shift": rng.normal(size=8),
        "mean": rng.normal(size=8) / 2,
        "variance": rng.uniform(0.5, 1.5, 8),
        **others,
    }
    node = helper.make_node(
        "BatchNormalization",
        ["joined", "scale", "shift", "mean", "variance"],
        ["normal"],
        name="norm",
        epsilon=1e-3,
    )
    return _network(folder, node, **constants)


def _product_and_sum(
    folder: Path, shape: tuple[int, ...], *, more: tuple[Any, ...] = (), swapped: bool = False
) -> Path:
    rng = np.random.default_rng(2)
    of_product, of_sum = ["joined", "factors"], ["product", "summands"]
    if swapped:
        of_product.reverse()
        of_sum.reverse()
    return _network(
        folder,
        helper.make_node("Mul", of_product, ["product"], name="mul"),
        helper.make_node("Add", of_sum, ["normal" if not more else "sum"], name="add"),
        *more,
        factors=rng.uniform(0.5, 1.5, shape),
        summands=rng.normal(size=shape),
    )


def _quantized(float_path: Path, **arguments: Any) -> Path:
    path = float_path.with_name("int8.onnx")
    images = np.random.default_rng(3).integers(0, 256, (16, 12, 12, 3), dtype=np.uint8)
    scheme = SCHEMES.get("int8").SCHEME
    quantize_onnx(float_path, path, scheme=scheme, calibration=images, pixels=_PIXELS, **arguments)
    return path


def _kinds(path: Path) -> Counter[str]:
    return Counter(operation.kind for operation in read(path).operations)


def _largest_error(float_path: Path, path: Path) -> float:
    """As a share of the width of the float model's scores."""
    import onnxruntime

    images = np.random.default_rng(4).integers(0, 256, (8, *_SHAPE[1:]), dtype=np.uint8)
    exact, near = (onnxruntime.InferenceSession(one) for one in (float_path, path))
    _, scores = border(path)
    expected = np.concatenate([exact.run(None, {"image": image[None] / np.float32(255)})[0] for image in images])
    found = np.concatenate([near.run(None, {"image": image[None]})[0] for image in images])
    found = (found.astype(np.float32) - scores.zero_point) * scores.scale
    return float(np.abs(found - expected).max() / np.ptp(expected))


def _operations_as_run(path: Path) -> Counter[str]:
    """As ONNX Runtime fuses them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path.with_name("run.onnx")), 3
    onnxruntime.InferenceSession(path, options)
    return Counter(node.op_type for node in onnx.load(path.with_name("run.onnx")).graph.node)


def test_a_batch_normalization_is_one_integer_operation(tmp_path: Path) -> None:
    """As other frameworks export a DenseNet: behind a concatenation, in a form that no int8 kernel takes."""
    float_path = _normalization(tmp_path)
    path = _quantized(float_path)
    assert _kinds(path)["DEPTHWISE_CONV_2D"] == 1
    assert "BatchNormalization" not in [node.op_type for node in onnx.load(path).graph.node]
    ran = _operations_as_run(path)
    assert ran["QLinearConv"] == 3
    assert not {"QLinearMul", "QLinearAdd", "DequantizeLinear", "Relu"} & set(ran)
    assert all_alike(read(path))
    assert _largest_error(float_path, path) < 0.02


def test_a_normalization_of_the_pixels(tmp_path: Path) -> None:
    float_path = _network(
        tmp_path,
        helper.make_node("Mul", ["image", "factors"], ["product"], name="mul"),
        helper.make_node("Add", ["product", "summands"], ["even"], name="add"),
        helper.make_node("Concat", ["even", "made"], ["normal"], name="both", axis=1),
        factors=1 / np.array([0.23, 0.22, 0.23]).reshape(1, 3, 1, 1),
        summands=-np.array([2.1, 2.0, 1.8]).reshape(1, 3, 1, 1),
    )
    path = _quantized(float_path)
    assert (_kinds(path)["DEPTHWISE_CONV_2D"], _kinds(path)["MUL"]) == (1, 0)
    assert _operations_as_run(path)["QLinearConv"] == 3
    assert _largest_error(float_path, path) < 0.02


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (8, 1, 1)])
def test_a_product_and_a_sum_for_each_channel_are_one(tmp_path: Path, shape: tuple[int, ...], swapped: bool) -> None:
    float_path = _product_and_sum(tmp_path, shape, swapped=swapped)
    path = _quantized(float_path)
    kinds = _kinds(path)
    assert (kinds["DEPTHWISE_CONV_2D"], kinds["MUL"], kinds["ADD"]) == (1, 0, 0)
    assert all_alike(read(path))
    assert _largest_error(float_path, path) < 0.02


@pytest.mark.parametrize("factor", [0.0, 1e-30, -1e-6, 1e-3])
def test_a_channel_that_hardly_passes(tmp_path: Path, factor: float) -> None:
    """Its summand is many times what 32 bits hold in steps of its own weight."""
    scale = np.random.default_rng(5).uniform(0.5, 1.5, 8)
    scale[[1, 6]] = factor
    float_path = _normalization(tmp_path, scale=scale)
    assert _largest_error(float_path, _quantized(float_path)) < 0.02


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 8, 12, 12)])
def test_what_is_no_normalization_stays(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = _quantized(_product_and_sum(tmp_path, shape))
    kinds = _kinds(path)
    assert (kinds["DEPTHWISE_CONV_2D"], kinds["MUL"], kinds["ADD"]) == (0, 1, 1)
    assert all_alike(read(path))


def test_a_product_that_others_read_stays(tmp_path: Path) -> None:
    more = helper.make_node("Add", ["sum", "product"], ["normal"], name="both")
    kinds = _kinds(_quantized(_product_and_sum(tmp_path, (1, 8, 1, 1), more=(more,))))
    assert (kinds["DEPTHWISE_CONV_2D"], kinds["MUL"], kinds["ADD"]) == (0, 1, 2)


def test_what_a_repair_keeps_in_float_stays_what_it_is(tmp_path: Path) -> None:
    path = _quantized(_normalization(tmp_path), kept=frozenset({"normal"}))
    assert "BatchNormalization" in [node.op_type for node in onnx.load(path).graph.node]


def test_a_keras_network_with_normalizations_before_its_activations(
    built: Any, networks: Any, run: Any, tmp_path: Path
) -> None:
    """With statistics as a training leaves them; those of an untrained network are no product at all."""
    import keras

    from emb.export.source import open_source

    model = keras.models.clone_model(built("pre_activation"))
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weights.shape) for weights in layer.get_weights()])
    model.save(tmp_path / "model.keras")
    open_source(tmp_path / "model.keras").write(tmp_path / "float.onnx", file_format="onnx")
    images = networks.images("pre_activation", 32)
    quantize_onnx(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", scheme=SCHEMES.get("int8").SCHEME, calibration=images
    )
    kinds = _kinds(tmp_path / "int8.onnx")
    assert kinds["DEPTHWISE_CONV_2D"] > 0
    assert kinds["MUL"] == 0
    assert all_alike(read(tmp_path / "int8.onnx"))
    expected = np.asarray(model(images.astype(np.float32), training=False))
    assert np.abs(run(tmp_path / "int8.onnx", images) - expected).max() <= 0.04 * max(1.0, float(np.ptp(expected)))
