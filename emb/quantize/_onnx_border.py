"""Checks that an ONNX graph in QDQ form is integer throughout, and makes its input and output uint8.

In QDQ form every operation is a float operation between a DequantizeLinear and a QuantizeLinear; a runtime with
integer kernels fuses the three.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from emb.errors import ExportError
from emb.quantize._onnx_graph import constants, model_input, readers_of
from emb.quantize._ranges import Range
from emb.spec.scheme import Scheme

_FUSED = ("Relu", "Clip")
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
# Operations that ONNX Runtime's CPU kernels compute on 8-bit integers, alone or fused with their neighbours.
_INTEGER = """
    Conv ConvTranspose Gemm MatMul Add Mul Concat AveragePool GlobalAveragePool MaxPool Relu Clip LeakyRelu Sigmoid
    Softmax Reshape Flatten Transpose Squeeze Unsqueeze Slice Split Gather Pad Resize Where ArgMax Identity
    DepthToSpace SpaceToDepth
"""


def with_activations(graph: Any, kept: Collection[str]) -> frozenset[str]:
    """`kept`, and what the ReLUs right behind these operations write, which are one with them in a runtime."""
    found = set(kept)
    for node in graph.node:
        if node.op_type in _FUSED and node.input[0] in found:
            found.add(node.output[0])
    return frozenset(found)


def quantized_input(graph: Any, found: Range) -> None:
    """Put a QuantizeLinear and a DequantizeLinear behind an input that float operations alone read.

    found: the range of 0..255. Edits a graph in QDQ form in place.
    """
    import onnx

    value = model_input(graph)
    if any(node.op_type == _Q and value.name in node.input for node in graph.node):
        return
    stored, real, scale, zero_point = (
        f"{value.name}_{part}" for part in ("stored", "widened", "widened_scale", "widened_zero_point")
    )
    step = (found.highest - found.lowest) / 255
    code = (np.array(step, np.float32), np.array(round(-found.lowest / step), np.uint8))
    _rename_inputs(graph, value.name, real)
    graph.node.extend(
        [
            onnx.helper.make_node(_Q, [value.name, scale, zero_point], [stored], name=stored),
            onnx.helper.make_node(_DQ, [stored, scale, zero_point], [real], name=real),
        ]
    )
    graph.initializer.extend(
        onnx.numpy_helper.from_array(one, name) for one, name in zip(code, (scale, zero_point), strict=True)
    )


def check_integer_only(graph: Any, scheme: Scheme, *, kept: Collection[str] = ()) -> None:
    """Raise ExportError naming every operation that a runtime would have to compute in float32.

    kept: names of the first outputs of operations that were to be left so.
    """
    import onnx

    writers = {name: node for node in graph.node for name in node.output}
    readers = readers_of(graph)
    held = constants(graph)
    value = model_input(graph)
    faults = []
    for node in graph.node:
        if node.op_type in (_Q, _DQ) or node.output[0] in kept:
            continue
        if _reads_table(node, held, writers, readers) or _compares_integers(node, held, writers):
            continue
        sources = [name for name in node.input if name in writers or name == value.name]
        floats = [name for name in sources if name == value.name or writers[name].op_type != _DQ]
        floats += [name for name in node.input[:2] if name in held and held[name].data_type == onnx.TensorProto.FLOAT]
        into = [reader.op_type for name in node.output for reader in readers.get(name, [])]
        if floats or not into or any(kind != _Q for kind in into) or node.op_type not in _INTEGER.split():
            faults.append(f"{node.op_type} {node.name}")
    if faults:
        raise ExportError(
            f"the {scheme.name} ONNX model keeps float operations",
            why="\n       ".join(faults),
            fix="replace the layers behind these operations, or choose dynamic or float16",
        )


def _compares_integers(node: Any, held: dict[str, Any], writers: dict[str, Any]) -> bool:
    """Whether it is a Max of 8-bit integers with constants; see _onnx_limits."""
    import onnx

    constants = [held[name].data_type for name in node.input if name in held]
    sources = [writers[name].op_type for name in node.input if name in writers]
    return node.op_type == "Max" and constants == [onnx.TensorProto.UINT8] and _DQ not in sources


def _reads_table(node: Any, held: dict[str, Any], writers: dict[str, Any], readers: dict[str, list[Any]]) -> bool:
    """Whether it is one of the two operations that look up a table of 8-bit integers; see _onnx_tables."""
    import onnx

    if node.op_type == "Cast":
        return all(_reads_table(reader, held, writers, readers) for reader in readers.get(node.output[0], []))
    table = held.get(node.input[0]) if node.op_type == "Gather" else None
    place = writers.get(node.input[1]) if table is not None else None
    is_table = table is not None and table.data_type == onnx.TensorProto.UINT8
    return is_table and place is not None and place.op_type == "Cast"


def uint8_border(graph: Any) -> None:
    """Let the graph begin behind the input's QuantizeLinear and end before the output's DequantizeLinear.

    Their scales stay in the file: at the DequantizeLinear that reads the input and the QuantizeLinear that writes
    the output.
    """
    import onnx

    value, output = model_input(graph), graph.output[0]
    first = [node for node in graph.node if node.op_type == _Q and node.input[0] == value.name]
    last = [node for node in graph.node if node.op_type == _DQ and node.output[0] == output.name]
    if len(first) != 1 or len(last) != 1:
        raise ExportError(
            "the ONNX model's border could not be made uint8",
            why=f"{len(first)} operations quantize the input, {len(last)} widen the output",
            fix="use the input once, and let the output be that of one operation",
        )
    _rename_inputs(graph, first[0].output[0], value.name)
    made = last[0].input[0]
    graph.node.remove(first[0])
    graph.node.remove(last[0])
    for node in graph.node:
        node.output[:] = [output.name if name == made else name for name in node.output]
    _rename_inputs(graph, made, output.name)
    for border in (value, output):
        border.type.tensor_type.elem_type = onnx.TensorProto.UINT8


def _rename_inputs(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
