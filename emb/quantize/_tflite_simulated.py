"""Writes a float .tflite that computes what an int8 one would, but for the layers that are left out of it.

Weights become the real numbers that their integers stand for, and behind every operation a QUANTIZE and a DEQUANTIZE
round its output. Only the sums within an operation are floats, which differ from int32 sums by less than a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.graph import flatbuffer as fb


def simulate(model: Any, integers: Mapping[str, Any], int8_model: Any, *, kept: Sequence[bool]) -> None:
    """Edit the float schema ModelT in place.

    integers: name of a float activation -> its int8 TensorT in `int8_model`, the schema ModelT that was made of the
    same float model.  kept: for every operation, whether its weights and its outputs stay as they are.
    """
    subgraph = model.subgraphs[0]
    weights = {fb.tensor_name(tensor): tensor for tensor in int8_model.subgraphs[0].tensors}
    operators = []
    for operator, is_kept in zip(list(subgraph.operators), kept, strict=True):
        operators.append(operator)
        if is_kept:
            continue
        for index in operator.inputs:
            if index != -1:
                _round_weights(model, subgraph.tensors[index], int8_model, weights)
        for index in operator.outputs:
            name = fb.tensor_name(subgraph.tensors[index])
            if name in integers:
                operators += _rounding(model, subgraph, int(index), integers[name], written=operators)
    subgraph.operators = operators
    # They would name outputs that another tensor has become.
    model.signatureDefs = None


def _round_weights(model: Any, tensor: Any, int8_model: Any, weights: Mapping[str, Any]) -> None:
    stored = weights.get(fb.tensor_name(tensor))
    if stored is None or not fb.is_constant(model, tensor) or fb.type_name(stored) not in ("INT8", "INT4"):
        return
    if fb.type_name(tensor) != "FLOAT32" or list(stored.shape) != list(tensor.shape):
        return
    quantization = stored.quantization
    scales = np.asarray(quantization.scale, np.float32)
    zero_points = np.asarray(quantization.zeroPoint, np.float32)
    shape = [1] * len(tensor.shape)
    if scales.size > 1:
        shape[quantization.quantizedDimension] = scales.size
    values = _integers(int8_model, stored).astype(np.float32)
    real: NDArray[np.float32] = (values - zero_points.reshape(shape)) * scales.reshape(shape)
    model.buffers[tensor.buffer].data = np.ascontiguousarray(real, np.float32).reshape(-1).view(np.uint8)


def _integers(model: Any, tensor: Any) -> NDArray[np.int8]:
    """The stored weights. Of 4 bits there are two in a byte, the first one in its lower half."""
    if fb.type_name(tensor) == "INT8":
        whole: NDArray[np.int8] = fb.constant(model, tensor, np.int8)
        return whole
    pairs = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.int8)
    halves = np.stack([np.left_shift(pairs, 4) >> 4, pairs >> 4], axis=1).reshape(-1)
    values: NDArray[np.int8] = halves[: int(np.prod(tensor.shape))].reshape(tensor.shape)
    return values


def _rounding(model: Any, subgraph: Any, index: int, code: Any, *, written: Sequence[Any]) -> list[Any]:
    """QUANTIZE and DEQUANTIZE behind the tensor; whoever is to read it from now on reads what they give."""
    from ai_edge_litert import schema_py_generated as schema

    source = subgraph.tensors[index]
    name = fb.tensor_name(source)
    stored = _tensor(subgraph, source, name=f"{name}/stored", kind=schema.TensorType.INT8)
    rounded = _tensor(subgraph, source, name=f"{name}/rounded", kind=schema.TensorType.FLOAT32)
    subgraph.tensors[stored].quantization = code.quantization
    done = {id(operator) for operator in written}
    for reader in subgraph.operators:
        if id(reader) not in done:
            reader.inputs = np.array([rounded if one == index else one for one in reader.inputs], np.int32)
    subgraph.outputs = np.array([rounded if one == index else one for one in subgraph.outputs], np.int32)
    operations = schema.BuiltinOperator
    return [
        _operator(model, index, stored, builtin=operations.QUANTIZE, version=1),
        _operator(model, stored, rounded, builtin=operations.DEQUANTIZE, version=2),
    ]


def _tensor(subgraph: Any, source: Any, *, name: str, kind: int) -> int:
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.shape, tensor.name, tensor.buffer, tensor.type = source.shape, name.encode(), 0, kind
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _operator(model: Any, source: int, target: int, *, builtin: int, version: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    operator = schema.OperatorT()
    operator.opcodeIndex = fb.operator_code(model, builtin=builtin, version=version)
    operator.inputs, operator.outputs = np.array([source], np.int32), np.array([target], np.int32)
    is_quantize = builtin == schema.BuiltinOperator.QUANTIZE
    options = schema.BuiltinOptions
    operator.builtinOptionsType = options.QuantizeOptions if is_quantize else options.DequantizeOptions
    operator.builtinOptions = schema.QuantizeOptionsT() if is_quantize else schema.DequantizeOptionsT()
    return operator
