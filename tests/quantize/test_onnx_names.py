"""What quantization adds to an ONNX graph has short names; layers keep theirs, and the answers their bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emb.quantize import SCHEMES, _onnx, quantize_onnx
from emb.quantize._onnx_names import shorten

_ADDED = ("QuantizeLinear", "DequantizeLinear")


def _quantized(float_path: Path, path: Path, images: np.ndarray, **arguments: Any) -> Any:
    quantize_onnx(float_path, path, scheme=SCHEMES.get("int8").SCHEME, calibration=images, **arguments)
    return onnx.load(path)


@pytest.mark.parametrize("name", ["lenet", "residual", "inception", "pre_activation", "two_groups"])
@pytest.mark.parametrize("lanes", [0, 8])
def test_the_same_answers_under_shorter_names(
    name: str,
    lanes: int,
    float_file: Any,
    networks: Any,
    run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = networks.images(name, 16)
    model = _quantized(float_file(name, "onnx"), tmp_path / "short.onnx", images, lanes=lanes)
    monkeypatch.setattr(_onnx, "shorten", lambda graph: None)
    long = _quantized(float_file(name, "onnx"), tmp_path / "long.onnx", images, lanes=lanes)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run(tmp_path / "short.onnx", images), run(tmp_path / "long.onnx", images))
    assert (tmp_path / "short.onnx").stat().st_size < (tmp_path / "long.onnx").stat().st_size

    def layers(one: Any) -> list[tuple[str, str]]:
        return [(node.op_type, node.name) for node in one.graph.node if node.op_type not in _ADDED]

    assert layers(model) == layers(long)
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "scores"]
    outputs = [name for node in model.graph.node for name in node.output]
    assert len(set(outputs)) == len(outputs)
    assert all(len(node.name) <= 5 or node.output[0] == "scores" for node in model.graph.node if node.op_type in _ADDED)


def test_equal_scales_are_held_once(float_file: Any, networks: Any, tmp_path: Path) -> None:
    model = _quantized(float_file("residual", "onnx"), tmp_path / "int8.onnx", networks.images("residual", 16))
    weights = {node.input[0] for node in model.graph.node if node.op_type in _ADDED}
    codes = [tensor for tensor in model.graph.initializer if tensor.name not in weights and len(tensor.dims) < 2]
    values = [(tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes()) for tensor in codes]
    assert len(values) > 10
    assert len(set(values)) == len(values)


def test_names_that_are_taken() -> None:
    """By tensors of the network, a constant that is an operation's input as well, and the model's output."""
    held = {
        "scale": np.array(0.5, np.float32),
        "same": np.array(0.5, np.float32),
        "zero": np.array(3, np.uint8),
        "both": np.array(0.25, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["q0", "scale", "zero"], ["stored"], name="first"),
        helper.make_node("DequantizeLinear", ["stored", "same", "zero"], ["real"], name="second"),
        helper.make_node("Mul", ["real", "both"], ["c0"], name="d1"),
        helper.make_node("QuantizeLinear", ["c0", "both", "zero"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "taken",
        [helper.make_tensor_value_info("q0", TensorProto.FLOAT, (4,))],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, (4,))],
        [numpy_helper.from_array(values, name) for name, values in held.items()],
    )
    shorten(graph)
    assert [(node.op_type, list(node.input), list(node.output)) for node in graph.node] == [
        ("QuantizeLinear", ["q0", "c0_", "c1"], ["q0_"]),
        ("DequantizeLinear", ["q0_", "c0_", "c1"], ["d1_"]),
        ("Mul", ["d1_", "both"], ["c0"]),
        ("QuantizeLinear", ["c0", "both", "c1"], ["y"]),
    ]
    assert sorted(tensor.name for tensor in graph.initializer) == ["both", "c0_", "c1"]
    assert [node.name for node in graph.node] == ["q0_", "d1_", "d1", "y"]
