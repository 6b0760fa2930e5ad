"""Short names for what quantization adds to an ONNX graph: of a deep network's file, names are the larger part.

Layers are found by the names of the operations between a DequantizeLinear and a QuantizeLinear, and those stay.
"""

from __future__ import annotations

from typing import Any

from emb.quantize._onnx_graph import free_name

_LETTERS = {"QuantizeLinear": "q", "DequantizeLinear": "d"}


def shorten(graph: Any) -> None:
    """Edit a graph in QDQ form in place: each QuantizeLinear and DequantizeLinear, its scale, zero point and output.

    Equal scales and zero points become one. The names of the graph's inputs and outputs, of weights, and of all other
    operations and what they write stay.
    """
    added = [node for node in graph.node if node.op_type in _LETTERS]
    elsewhere = {name for node in graph.node for name in (node.input[:1] if node.op_type in _LETTERS else node.input)}
    codes = {name for node in added for name in node.input[1:]} - elsewhere
    written = {node.output[0] for node in added} - {value.name for value in graph.output}
    taken = {name for node in graph.node for name in (*node.input, *node.output)} - codes - written
    taken |= {node.name for node in graph.node if node.op_type not in _LETTERS}

    short = _of_codes(graph, codes, taken)
    for number, node in enumerate(added):
        if node.output[0] in written:
            short[node.output[0]] = free_name(f"{_LETTERS[node.op_type]}{number}", taken)
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = short.get(name, name)
    for node in added:
        node.name = node.output[0]


def _of_codes(graph: Any, codes: set[str], taken: set[str]) -> dict[str, str]:
    """{old: new name} of the constants called so, one new name for all that are equal; renamed, and held once."""
    from onnx.numpy_helper import to_array

    short, by_value, repeated = dict[str, str](), dict[Any, str](), []
    for tensor in graph.initializer:
        if tensor.name not in codes:
            continue
        value = tensor.data_type, tuple(tensor.dims), to_array(tensor).tobytes()
        if value in by_value:
            repeated.append(tensor)
        else:
            by_value[value] = free_name(f"c{len(by_value)}", taken)
        short[tensor.name] = by_value[value]
    for tensor in repeated:
        graph.initializer.remove(tensor)
    for tensor in graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
    return short
