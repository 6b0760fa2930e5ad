"""Operations that ONNX Runtime computes in floats become tables of 256 integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from emb.quantize import SCHEMES, quantize_onnx

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3)).astype(np.uint8)


def _constant(name: str, *values: float) -> Any:
    return numpy_helper.from_array(np.array(values, np.float32).reshape((1,) * 4 if len(values) == 1 else -1), name)


# {name: (operations from "x" to "y", the same with numpy)}; x is 0..255.
FUNCTIONS: dict[str, Any] = {
    "root": ([("Sqrt", ["x"], "y")], np.sqrt),
    "power": ([("Add", ["x", "one"], "a"), ("Pow", ["a", "power"], "y")], lambda x: (x + 1) ** -0.75),
    "logarithm": ([("Add", ["x", "one"], "a"), ("Log", ["a"], "y")], np.log1p),
    "x times f(x)": (
        [("Add", ["x", "one"], "a"), ("Reciprocal", ["a"], "r"), ("Mul", ["x", "r"], "y")],
        lambda x: x / (x + 1),
    ),
    "a constant before": ([("Add", ["x", "one"], "a"), ("Div", ["one", "a"], "y")], lambda x: 1 / (1 + x)),
}


def _file(path: Path, operations: Any) -> Path:
    """Image -> MaxPool (so that x is no input) -> the function -> Flatten -> scores."""
    nodes = [
        helper.make_node("MaxPool", ["image"], ["x"], name="pool", kernel_shape=[1, 1]),
        *(helper.make_node(kind, given, [made], name=f"{kind}_{made}") for kind, given, made in operations),
        helper.make_node("Flatten", ["y"], ["scores"], name="flatten"),
    ]
    border = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 4, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 48]),
    ]
    graph = helper.make_graph(nodes, "net", border[:1], border[1:], [_constant("one", 1.0), _constant("power", -0.75)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    # onnx writes its own newest version otherwise.
    model.ir_version = 8
    onnx.save(model, path)
    return path


def _quantized(tmp_path: Path, operations: Any) -> Path:
    path = tmp_path / "int8.onnx"
    quantize_onnx(
        _file(tmp_path / "model.onnx", operations), path, scheme=SCHEMES.get("int8").SCHEME, calibration=IMAGES
    )
    return path


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_table_is_the_function_to_half_a_step(name: str, tmp_path: Path) -> None:
    operations, function = FUNCTIONS[name]
    path = _quantized(tmp_path, operations)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = IMAGES.transpose(0, 3, 1, 2)
    stored = np.concatenate([session.run(None, {"image": image[np.newaxis]})[0] for image in images])
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    last = [node for node in onnx.load(path).graph.node if node.op_type == "QuantizeLinear"][-1]
    scale, zero_point = (held[one] for one in last.input[1:3])
    real = (stored.astype(np.float64) - float(zero_point)) * float(scale)
    expected = function(images.reshape(len(images), -1).astype(np.float64))
    assert np.abs(real - expected).max() <= 0.5001 * float(scale)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_float_operation_remains(name: str, tmp_path: Path) -> None:
    optimized = tmp_path / "optimized.onnx"
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(optimized)
    path = _quantized(tmp_path, FUNCTIONS[name][0])
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    onnx.checker.check_model(onnx.load(path), full_check=True)
    kinds = [node.op_type for node in onnx.load(optimized).graph.node]
    assert kinds.count("Gather") == 1
    assert not {"QuantizeLinear", "DequantizeLinear", "Sqrt", "Pow", "Log", "Reciprocal", "Div"} & set(kinds)


def test_a_function_of_two_tensors_is_no_table(tmp_path: Path) -> None:
    from emb.errors import ExportError

    operations = [("MaxPool", ["image"], "z"), ("Div", ["x", "z"], "y")]
    path = _file(tmp_path / "model.onnx", operations)
    model = onnx.load(path)
    model.graph.node[1].attribute.append(helper.make_attribute("kernel_shape", [3, 3]))
    model.graph.node[1].attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
    onnx.save(model, path)
    images = np.maximum(IMAGES, 1)
    with pytest.raises(ExportError) as caught:
        quantize_onnx(path, tmp_path / "out.onnx", scheme=SCHEMES.get("int8").SCHEME, calibration=images)
    assert str(caught.value) == (
        "the int8 ONNX model keeps float operations\n"
        "  why: Div Div_y\n"
        "  fix: replace the layers behind these operations, or choose dynamic or float16"
    )
