"""Lets a MAXIMUM with a limit for each channel, before a convolution, choose among the integers that it reads.

It then has no scale of its own and rounds no value. It is what a ChannelReLU becomes in a file. Knows no Keras.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.graph import flatbuffer as fb
from emb.quantize._limits import bias_for_limits, stored_limits
from emb.quantize._ranges import Range

# ai-edge-quantizer's SAME_AS_INPUT_SCALE, of what may stand before a MAXIMUM: no range of its own is used.
_WITH_ITS_INPUTS_SCALE = ("AVERAGE_POOL_2D", "MAX_POOL_2D")


def limits_to_integers(model: Any, ranges: dict[str, Range], *, levels: int, bits: int, kept: Collection[str]) -> None:
    """Edit a float schema ModelT and the ranges of its tensors in place.

    levels: of the integers, 256 or 65,536, whose zero point is 0.  bits: of the convolutions' weights.
    kept: names of first outputs of operations that stay float.
    """
    tensors = model.subgraphs[0].tensors
    handed_on = {
        int(one.outputs[0]): int(one.inputs[0])
        for one in model.subgraphs[0].operators
        if fb.operation_name(model, one) in _WITH_ITS_INPUTS_SCALE
    }
    for operator, convolution in _found(model):
        index = int(operator.inputs[0])
        while index in handed_on:
            index = handed_on[index]
        source, output = fb.tensor_name(tensors[index]), fb.tensor_name(tensors[operator.outputs[0]])
        if source not in ranges or output in kept:
            continue
        ranges[output] = ranges[source]
        limit = fb.constant(model, tensors[operator.inputs[1]], np.float32)
        limits = stored_limits(limit, ranges[source], levels=levels, symmetric=levels > 256)
        weights, bias = (fb.constant(model, tensors[convolution.inputs[place]], np.float32) for place in (1, 2))
        is_rounded = fb.tensor_name(tensors[convolution.outputs[0]]) not in kept
        by_channel = weights.transpose(0, 3, 1, 2)
        _give(model, convolution, 2, bias_for_limits(by_channel, bias, limits, bits=bits if is_rounded else None))
        _give(model, operator, 1, limits.on_grid.reshape(limit.shape).astype(np.float32))


def _found(model: Any) -> list[tuple[Any, Any]]:
    """Every such MAXIMUM with its convolution."""
    pairs = [(operator, _convolution_behind(model, operator)) for operator in model.subgraphs[0].operators]
    return [(operator, convolution) for operator, convolution in pairs if convolution is not None]


def _convolution_behind(model: Any, operator: Any) -> Any:
    """The convolution that alone reads a MAXIMUM of that kind and pads nothing; None if this is no such MAXIMUM."""
    from ai_edge_litert import schema_py_generated as schema

    subgraph = model.subgraphs[0]
    if fb.operation_name(model, operator) != "MAXIMUM":
        return None
    output, shape = operator.outputs[0], list(subgraph.tensors[operator.inputs[0]].shape)
    limit = subgraph.tensors[operator.inputs[1]]
    readers = [one for one in subgraph.operators if output in list(one.inputs)]
    if len(readers) != 1 or output in list(subgraph.outputs) or fb.operation_name(model, readers[0]) != "CONV_2D":
        return None
    constants = [subgraph.tensors[one] for one in readers[0].inputs[1:] if one != -1]
    is_known = len(constants) == 2 and all(fb.is_constant(model, one) for one in (limit, *constants))
    if not is_known or len(shape) != 4 or list(limit.shape) != [1, 1, 1, shape[3]]:
        return None
    is_unpadded = readers[0].builtinOptions.padding == schema.Padding.VALID or list(constants[0].shape)[1:3] == [1, 1]
    return readers[0] if is_unpadded else None


def _give(model: Any, operator: Any, place: int, values: NDArray[np.float32]) -> None:
    """Let an operation read other constants, and no other one that shares them."""
    from ai_edge_litert import schema_py_generated as schema

    subgraph, index = model.subgraphs[0], operator.inputs[place]
    tensor = subgraph.tensors[index]
    if sum(list(one.inputs).count(index) for one in subgraph.operators) > 1:
        tensor = copy.copy(tensor)
        tensor.name = f"{fb.tensor_name(tensor)}_{len(subgraph.tensors)}".encode()
        operator.inputs = np.array(operator.inputs, np.int32)
        operator.inputs[place] = len(subgraph.tensors)
        subgraph.tensors.append(tensor)
    buffer = schema.BufferT()
    buffer.data = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8)
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
