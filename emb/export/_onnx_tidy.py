"""Makes what tf2onnx wrote the same on every run, and drops what does nothing. Changes no number.

tf2onnx numbers names with counters that live as long as the process, and its order follows Python's string hashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_COUNTER = re.compile(r"__\d+|:\d+$")


def tidy(model: Any, *, output: str) -> None:
    """Edit an onnx ModelProto in place: canonical order and names, no empty operation; the output is named `output`."""
    graph = model.graph
    # "converted from …", with a counter of the process in it.
    graph.doc_string = model.doc_string = ""
    _drop_reshapes_to_same_shape(model)
    _order(graph)
    _name_by_appearance(graph, output)
    domains = {node.domain for node in graph.node}
    for opset in [opset for opset in model.opset_import if opset.domain not in domains]:
        model.opset_import.remove(opset)


def _drop_reshapes_to_same_shape(model: Any) -> None:
    """With one channel, tf2onnx turns a pair of transposes into such a Reshape."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    outputs = {value.name for value in model.graph.output}
    for node in list(model.graph.node):
        is_same = node.op_type == "Reshape" and shapes.get(node.input[0]) == shapes.get(node.output[0])
        if is_same and shapes[node.input[0]] and 0 not in shapes[node.input[0]] and node.output[0] not in outputs:
            _replace_inputs(model.graph, node.output[0], node.input[0])
            model.graph.node.remove(node)


def _replace_inputs(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def _order(graph: Any) -> None:
    """Operations in the order in which the output needs them, constants in the order of their first use."""
    maker = {name: node for node in graph.node for name in node.output}
    ordered: list[Any] = []
    placed: set[str] = set()
    waiting = [(maker[value.name], False) for value in reversed(graph.output)]
    while waiting:
        node, is_ready = waiting.pop()
        if node.output[0] in placed:
            continue
        if is_ready:
            placed.update(node.output)
            ordered.append(node)
        else:
            waiting.append((node, True))
            waiting.extend((maker[name], False) for name in reversed(node.input) if name in maker)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    used = dict.fromkeys(name for node in ordered for name in node.input if name in constants)
    _refill(graph.node, ordered)
    _refill(graph.initializer, [constants[name] for name in used])


def _refill(field: Any, values: Iterable[Any]) -> None:
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(copies)


def _name_by_appearance(graph: Any, output: str) -> None:
    names = {value.name: value.name for value in graph.input} | {graph.output[0].name: output, "": ""}
    taken = set(names.values())
    for node in graph.node:
        for field in (node.input, node.output):
            for place, old in enumerate(field):
                if old not in names:
                    names[old] = _free(_COUNTER.sub("", old), taken)
                field[place] = names[old]
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    graph.output[0].name = output
    del graph.value_info[:]
    taken = set()
    for node in graph.node:
        node.name = _free(_COUNTER.sub("", node.name) or node.op_type, taken)


def _free(name: str, taken: set[str]) -> str:
    """The name, or with a number behind it if it is taken; taken from now on."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free
