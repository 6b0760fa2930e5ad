"""Functions of one 8-bit tensor as tables of 256 integers: what ONNX Runtime has no integer kernels for.

Sqrt, Reciprocal, Pow and their like, alone or one after the other, are one function f of one tensor's values, and 8-bit
values are 256. Gather reads the table at the stored integer: no float is computed when the model runs, and the
rounding of the steps between is gone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize import _onnx_graph as og

# What makes a table worth it: an operation on each value alone that runtimes compute in floats only.
_FLOAT_ONLY_NAMES = """
    Sqrt Reciprocal Pow Exp Log Div Abs Neg Elu Selu Celu Softplus Softsign HardSigmoid HardSwish Erf Mish
"""
_FLOAT_ONLY = frozenset(_FLOAT_ONLY_NAMES.split())
# What may stand among them.
_AMONG = _FLOAT_ONLY | {"Mul", "Add", "Sub", "Max", "Min", "Sigmoid", "Tanh", "Identity"}
# Stands in for a table while ONNX Runtime's quantizer surrounds every operation; it knows LeakyRelu as unary.
_STAND_IN = "LeakyRelu"
_PREFIX = "table_of_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """nodes compute the tensor `output` from the tensor `source` and scalar constants alone."""

    name: str
    source: str
    output: str
    nodes: tuple[Any, ...]
    constants: tuple[Any, ...]

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """values: any 1-D. What is not a number, as the root of a negative one, becomes 0."""
        from onnx import TensorProto, helper
        from onnx.reference import ReferenceEvaluator

        border = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [len(values)]) for name in (self.source, self.output)
        ]
        graph = helper.make_graph(list(self.nodes), "function", border[:1], border[1:], list(self.constants))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", og.OPSET)])
        with np.errstate(all="ignore"):
            result = ReferenceEvaluator(model).run(None, {self.source: values})[0]
        # A constant of shape (1, 1, 1, 1) gives the result its rank.
        return np.nan_to_num(result, nan=0.0).reshape(-1)


def functions_to_stand_ins(model: Any, *, kept: Collection[str] = ()) -> list[Function]:
    """Edit a ModelProto in place: each such function becomes one operation, to be replaced by `stand_ins_to_tables`.

    kept: names of the outputs of operations that stay as they are; a function with one that does not becomes a table.
    """
    import onnx

    graph = model.graph
    held = og.constants(graph)
    scalars = {name for name, tensor in held.items() if int(np.prod(tensor.dims)) == 1}
    origin = _origins(graph, scalars, set(held))
    writers = {name: node for node in graph.node for name in node.output}
    functions = []
    for output in _ends(graph, origin):
        nodes = _between(writers, output, origin[output], scalars)
        is_kept = all(node.output[0] in kept for node in nodes)
        if is_kept or not any(node.op_type in _FLOAT_ONLY for node in nodes):
            continue
        constants = {name: held[name] for node in nodes for name in node.input if name in scalars}
        functions.append(
            Function(
                name=_PREFIX + output,
                source=origin[output],
                output=output,
                nodes=tuple(type(node).FromString(node.SerializeToString()) for node in nodes),
                constants=tuple(type(one).FromString(one.SerializeToString()) for one in constants.values()),
            )
        )
    for function in functions:
        graph.node.remove(writers[function.output])
        graph.node.append(onnx.helper.make_node(_STAND_IN, [function.source], [function.output], name=function.name))
    if functions:
        og.drop_unread(graph)
        og.order(graph)
    return functions


def stand_ins_to_tables(graph: Any, functions: list[Function]) -> None:
    """Edit a graph in QDQ form in place: DequantizeLinear, stand-in, QuantizeLinear become Cast and Gather."""
    from onnx import TensorProto, helper, numpy_helper

    held = og.constants(graph)
    writers = {name: node for node in graph.node for name in node.output}
    for function in functions:
        node = next(node for node in graph.node if node.name == function.name)
        widen = writers[node.input[0]]
        narrow = next(reader for reader in graph.node if node.output[0] in reader.input)
        real = _codes(held, widen)
        scale, zero_point = (numpy_helper.to_array(held[name]) for name in narrow.input[1:3])
        table = np.clip(np.rint(function(real) / scale) + zero_point, 0, 255).astype(np.uint8)
        names = [f"{function.name}_{part}" for part in ("values", "place")]
        graph.initializer.append(numpy_helper.from_array(table, names[0]))
        graph.node.extend(
            [
                helper.make_node("Cast", [widen.input[0]], [names[1]], name=names[1], to=TensorProto.INT32),
                helper.make_node("Gather", names, list(narrow.output), name=function.name, axis=0),
            ]
        )
        graph.node.remove(node)
        graph.node.remove(narrow)
        if not any(widen.output[0] in reader.input for reader in graph.node):
            graph.node.remove(widen)


def _codes(held: dict[str, Any], widen: Any) -> NDArray[np.float32]:
    """The real numbers that the stored 0..255 stand for."""
    from onnx import numpy_helper

    scale, zero_point = (numpy_helper.to_array(held[name]) for name in widen.input[1:3])
    return ((np.arange(256) - int(zero_point)) * np.float32(scale)).astype(np.float32)


def _origins(graph: Any, scalars: set[str], held: set[str]) -> dict[str, str]:
    """{tensor: the tensor of whose values alone its values are a function}."""
    origin: dict[str, str] = {}
    for node in graph.node:
        sources = {origin.get(name, name) for name in node.input if name not in scalars}
        is_function = node.op_type in _AMONG and len(sources) == 1 and not sources & held
        for name in node.output:
            origin[name] = next(iter(sources)) if is_function else name
    return origin


def _ends(graph: Any, origin: dict[str, str]) -> list[str]:
    """Functions' tensors that anything but the same function's next step reads."""
    outputs = {value.name for value in graph.output}
    return [
        name
        for node in graph.node
        for name in node.output
        if origin[name] != name
        and (name in outputs or any(name in one.input and origin[one.output[0]] != origin[name] for one in graph.node))
    ]


def _between(writers: dict[str, Any], output: str, source: str, scalars: set[str]) -> list[Any]:
    """The operations from `source` to `output`, in order."""
    nodes: list[Any] = []
    seen = {source}

    def visit(name: str) -> None:
        if name in seen or name in scalars:
            return
        seen.add(name)
        for given in writers[name].input:
            visit(given)
        nodes.append(writers[name])

    visit(output)
    return nodes
