"""Gives an int8 TFLite model uint8 pixels and uint8 scores by a QUANTIZE at each end. Changes no weight.

TFLite's int8 kernels take int8 only, so the two operations stay; each only flips the uppermost bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emb.graph import flatbuffer as fb

# uint8 = int8 + 128 with the same scale.
_SHIFT = 128


def uint8_border(model: Any) -> None:
    """Edit the schema ModelT in place: its one input and its one output become uint8."""
    subgraph = model.subgraphs[0]
    inner_in, inner_out = subgraph.inputs[0], subgraph.outputs[0]
    outer_in = _shifted(subgraph, inner_in)
    outer_out = _shifted(subgraph, inner_out)
    subgraph.inputs = np.array([outer_in], np.int32)
    subgraph.outputs = np.array([outer_out], np.int32)
    subgraph.operators = [
        _operator(model, outer_in, inner_in),
        *subgraph.operators,
        _operator(model, inner_out, outer_out),
    ]
    for signature in model.signatureDefs or []:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = {inner_in: outer_in, inner_out: outer_out}.get(entry.tensorIndex, entry.tensorIndex)


def _shifted(subgraph: Any, index: int) -> int:
    """A uint8 twin of the int8 tensor, with its name; the int8 one is renamed."""
    from ai_edge_litert import schema_py_generated as schema

    inner = subgraph.tensors[index]
    outer = schema.TensorT()
    outer.shape, outer.name, outer.buffer = inner.shape, inner.name, 0
    outer.type = schema.TensorType.UINT8
    outer.quantization = schema.QuantizationParametersT()
    outer.quantization.scale = np.array(inner.quantization.scale, np.float32)
    outer.quantization.zeroPoint = np.array(inner.quantization.zeroPoint, np.int64) + _SHIFT
    inner.name = (fb.tensor_name(inner) + "_int8").encode()
    subgraph.tensors.append(outer)
    return len(subgraph.tensors) - 1


def _operator(model: Any, source: int, target: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    operator = schema.OperatorT()
    operator.opcodeIndex = fb.operator_code(model, builtin=schema.BuiltinOperator.QUANTIZE, version=1)
    operator.inputs, operator.outputs = np.array([source], np.int32), np.array([target], np.int32)
    operator.builtinOptionsType = schema.BuiltinOptions.QuantizeOptions
    operator.builtinOptions = schema.QuantizeOptionsT()
    return operator
