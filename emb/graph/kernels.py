"""The values of a first convolution's kernels, read from a .tflite or .onnx file. Draws nothing, knows no Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import ModelError
from emb.graph.model import Graph, Operation, Tensor, producers
from emb.graph.summary import first_convolution

Kernels = NDArray[np.float32]

# Axes of the stored kernels, as (height, width, channels of one filter, filters).
_TFLITE_AXES = {"CONV_2D": (1, 2, 3, 0), "DEPTHWISE_CONV_2D": (1, 2, 0, 3), "TRANSPOSE_CONV": (1, 2, 3, 0)}
_ONNX_AXES = {"CONV_2D": (2, 3, 1, 0), "DEPTHWISE_CONV_2D": (2, 3, 1, 0), "TRANSPOSE_CONV": (2, 3, 0, 1)}


def require_convolution(graph: Graph) -> Operation:
    """The first convolution. Raises ModelError if there is none."""
    operation = first_convolution(graph)
    if operation is None:
        raise ModelError(
            f"{graph.name} has no convolution",
            why="kernels and feature maps are those of convolutions; this model has none",
            fix="give a model with a convolution",
        )
    return operation


def first_kernels(path: Path, graph: Graph) -> tuple[str, Kernels]:
    """(name, kernels) of the first convolution of the file at `path`, whose graph is `graph`.

    kernels: (height, width, channels of one filter, filters) float32, integers taken back to what they stand for.
    Raises ModelError if the model has no convolution, or stores its kernels in a form that cannot be read.
    """
    operation = require_convolution(graph)
    index = _stored(graph, operation.inputs[1])
    read = _onnx_values if graph.format == "onnx" else _tflite_values
    values = _real(read(path, graph, index), graph.tensors[index])
    axes = (_ONNX_AXES if graph.format == "onnx" else _TFLITE_AXES)[operation.kind]
    if values.ndim == 3:  # one spatial axis
        values = values[:, :, np.newaxis] if graph.format == "onnx" else values[:, np.newaxis]
    if values.ndim != 4:
        raise _unreadable(graph, operation.name, f"they have {values.ndim} axes, not 4")
    return operation.name, values.transpose(axes)


def _stored(graph: Graph, index: int) -> int:
    """The constant of the file behind a tensor of weights, which may be widened or dequantized when it is loaded."""
    written_by = producers(graph)
    while not graph.tensors[index].constant and index in written_by:
        index = graph.operations[written_by[index]].inputs[0]
    return index


def _real(values: NDArray[Any], tensor: Tensor) -> Kernels:
    """real = (stored - zero_point) * scale, along the tensor's own axis if it has one."""
    quantization = tensor.quantization
    if quantization is None:
        return values.astype(np.float32)
    shape = [1] * values.ndim
    if quantization.axis is not None:
        shape[quantization.axis] = -1
    scales = np.array(quantization.scales, dtype=np.float64).reshape(shape)
    zero_points = np.array(quantization.zero_points, dtype=np.int64).reshape(shape)
    real: Kernels = ((values.astype(np.int64) - zero_points) * scales).astype(np.float32)
    return real


def _tflite_values(path: Path, graph: Graph, index: int) -> NDArray[Any]:
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    buffer = model.Buffers(model.Subgraphs(0).Tensors(index).Buffer())
    if buffer.Offset() > 1:  # behind the FlatBuffer, as in files of more than 2 GB
        stored: Any = np.frombuffer(data, np.uint8, buffer.Size(), buffer.Offset())
    else:
        stored = buffer.DataAsNumpy()
    return _shaped(stored, graph, index)


def _onnx_values(path: Path, graph: Graph, index: int) -> NDArray[Any]:
    import onnx
    from onnx import numpy_helper

    name = graph.tensors[index].name
    model = onnx.load(path)
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] == name:
            initializers[name] = node.attribute[0].t
    if name not in initializers:
        raise _unreadable(graph, name, "they are not stored as a constant")
    values: NDArray[Any] = numpy_helper.to_array(initializers[name])
    return values


def _shaped(stored: Any, graph: Graph, index: int) -> NDArray[Any]:
    tensor = graph.tensors[index]
    if isinstance(stored, int) or tensor.dtype not in {"float32", "float16", "int8", "uint8", "int16"}:
        raise _unreadable(graph, tensor.name, f"they are stored as {tensor.dtype}")
    values: NDArray[Any] = stored.view(np.dtype(tensor.dtype).newbyteorder("<")).reshape(tensor.shape or ())
    return values


def _unreadable(graph: Graph, name: str, why: str) -> ModelError:
    return ModelError(
        f"the kernels of {name} in {graph.name} cannot be read",
        why=why,
        fix="give the float32 file of the same model, or its .keras file",
    )
