"""Stores a float TFLite model's constants as 16-bit floats, each widened by a DEQUANTIZE. Computes nothing else.

XNNPACK and TFLite's CPU kernels widen such constants once, when the model is loaded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emb.errors import ExportError
from emb.graph import flatbuffer as fb

LARGEST = float(np.finfo(np.float16).max)


def weights_to_float16(model: Any) -> None:
    """Edit the schema ModelT in place. Raises ExportError for a weight beyond float16's largest number, 65,504."""
    from ai_edge_litert import schema_py_generated as schema

    subgraph = model.subgraphs[0]
    code = fb.operator_code(model, builtin=schema.BuiltinOperator.DEQUANTIZE, version=3)
    widened: dict[int, int] = {}
    for operator in subgraph.operators:
        for index in operator.inputs:
            if index >= 0 and index not in widened and _is_wide_constant(model, subgraph.tensors[index]):
                widened[int(index)] = _narrow(model, subgraph, index)
        operator.inputs = np.array([widened.get(int(index), index) for index in operator.inputs], np.int32)
    subgraph.operators = [
        *(_operator(schema, code, narrow, wide) for narrow, wide in widened.items()),
        *subgraph.operators,
    ]


def _is_wide_constant(model: Any, tensor: Any) -> bool:
    """Single numbers stay as they are: two bytes saved would cost an operation."""
    is_float = fb.type_name(tensor) == "FLOAT32" and fb.is_constant(model, tensor)
    return is_float and len(model.buffers[tensor.buffer].data) > np.dtype(np.float32).itemsize


def _narrow(model: Any, subgraph: Any, index: int) -> int:
    """Make the constant 16 bits wide; returns the index of a new float32 tensor for its widened values."""
    from ai_edge_litert import schema_py_generated as schema

    narrow = subgraph.tensors[index]
    values = fb.constant(model, narrow, np.float32)
    if np.abs(values).max() > LARGEST:
        raise ExportError(
            f"{fb.tensor_name(narrow)} does not fit into 16-bit floats",
            why=f"its largest value is {np.abs(values).max():g}, that of float16 is {LARGEST:g}",
            fix="choose float32 or dynamic",
        )
    wide = schema.TensorT()
    wide.shape, wide.type, wide.buffer = narrow.shape, narrow.type, 0
    wide.name = (fb.tensor_name(narrow) + "_32").encode()
    subgraph.tensors.append(wide)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.astype(np.float16).tobytes(), np.uint8)
    model.buffers.append(buffer)
    narrow.type, narrow.buffer = schema.TensorType.FLOAT16, len(model.buffers) - 1
    return len(subgraph.tensors) - 1


def _operator(schema: Any, code: int, narrow: int, wide: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = code
    operator.inputs, operator.outputs = np.array([narrow], np.int32), np.array([wide], np.int32)
    operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = schema.DequantizeOptionsT()
    return operator
