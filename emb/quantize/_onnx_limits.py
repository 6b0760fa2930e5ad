"""Lets a Max with a limit for each channel choose among the integers that it reads: what a ChannelReLU becomes.

ONNX Runtime's quantizer does not know Max, and its kernel compares 8-bit integers: no DequantizeLinear stands before
it and no QuantizeLinear behind. The bias of a convolution behind it changes as in _tflite_limits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize import _onnx_graph as og
from emb.quantize._limits import StoredLimits, bias_for_limits, stored_limits
from emb.quantize._ranges import Range

# Stands in for the comparison while ONNX Runtime's quantizer surrounds every operation: of one value each, and with
# its input's scale.
_STAND_IN = "MaxPool"
_PREFIX = "limits_of_"
# What ONNX Runtime's quantizer gives its input's scale, of what may stand before a Max.
_WITH_ITS_INPUTS_SCALE = ("AveragePool", "MaxPool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """name: of the operation that stands in.  values: real numbers, as (1, channels, 1, 1) or (channels, 1, 1)."""

    name: str
    values: NDArray[np.float32]


def limits_to_stand_ins(model: Any, ranges: Mapping[str, Range], *, kept: Collection[str] = ()) -> list[Limits]:
    """Edit a ModelProto with inferred shapes in place: each becomes one operation, for `stand_ins_to_limits`.

    ranges: of its float tensors.  kept: names of outputs of operations that stay as they are.
    """
    import onnx

    graph = model.graph
    held = og.constants(graph)
    readers = og.readers_of(graph)
    outputs = {value.name for value in graph.output}
    taken = {*held, *readers, *(name for node in graph.node for name in node.output)}
    handed_on = {node.output[0]: node.input[0] for node in graph.node if node.op_type in _WITH_ITS_INPUTS_SCALE}
    found = []
    for node in graph.node:
        behind = readers.get(node.output[0], [])
        if not _is_limit(node, held) or node.output[0] in {*outputs, *kept}:
            continue
        source = node.input[0]
        while source in handed_on:
            source = handed_on[source]
        if source not in ranges:
            continue
        values = onnx.numpy_helper.to_array(held[node.input[1]])
        if len(behind) == 1 and values.size == values.shape[-3] and _is_unpadded(behind[0], held):
            limits = stored_limits(values, ranges[source], levels=256)
            _move_bias(graph, behind[0], held, taken, limits, kept)
        found.append(Limits(name=og.free_name(_PREFIX + node.output[0], taken), values=values))
        node.op_type, node.name = _STAND_IN, found[-1].name
        del node.input[1], node.attribute[:]
        node.attribute.append(onnx.helper.make_attribute("kernel_shape", [1, 1]))
    return found


def stand_ins_to_limits(graph: Any, limits: list[Limits]) -> None:
    """Edit a graph in QDQ form in place: DequantizeLinear, stand-in, QuantizeLinear become Max."""
    from onnx import helper, numpy_helper

    held = og.constants(graph)
    writers = {name: node for node in graph.node for name in node.output}
    nodes = {node.name: node for node in graph.node}
    for one in limits:
        node = nodes[one.name]
        widen = writers[node.input[0]]
        narrow = next(reader for reader in graph.node if node.output[0] in reader.input)
        scale, zero_point = (numpy_helper.to_array(held[name]) for name in widen.input[1:3])
        stored = np.clip(np.rint(one.values / scale) + zero_point, 0, 255).astype(np.uint8)
        constant = f"{one.name}_constant"
        graph.initializer.append(numpy_helper.from_array(stored, constant))
        graph.node.append(helper.make_node("Max", [widen.input[0], constant], list(narrow.output), name=one.name))
        graph.node.remove(node)
        graph.node.remove(narrow)
        if not any(widen.output[0] in reader.input for reader in graph.node):
            graph.node.remove(widen)
    if limits:
        og.drop_unread(graph)


def _is_limit(node: Any, held: Mapping[str, Any]) -> bool:
    """Whether it is a Max of a tensor of rank 4 with constants that differ along one axis."""
    if node.op_type != "Max" or len(node.input) != 2 or node.input[0] in held or node.input[1] not in held:
        return False
    sizes = list(held[node.input[1]].dims)
    return len(sizes) in (3, 4) and sum(size > 1 for size in sizes) == 1


def _is_unpadded(node: Any, held: Mapping[str, Any]) -> bool:
    """Whether it is a convolution with constants that reads no padding."""
    import onnx

    if node.op_type != "Conv" or any(name not in held for name in node.input[1:]):
        return False
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    is_one = list(held[node.input[1]].dims)[2:] == [1, 1]
    pads_by_itself = attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") and not is_one
    return not (any(attributes.get("pads", ())) or pads_by_itself)


def _move_bias(
    graph: Any, convolution: Any, held: dict[str, Any], taken: set[str], limits: StoredLimits, kept: Collection[str]
) -> None:
    from onnx import numpy_helper

    weights = numpy_helper.to_array(held[convolution.input[1]])
    has_bias = len(convolution.input) > 2
    bias = numpy_helper.to_array(held[convolution.input[2]]) if has_bias else np.zeros(len(weights), np.float32)
    new = bias_for_limits(weights, bias, limits, bits=None if convolution.output[0] in kept else 8)
    name = og.free_name(f"{convolution.input[2] if has_bias else convolution.name}_limited", taken)
    graph.initializer.append(numpy_helper.from_array(new, name))
    convolution.input[2:] = [name]
