"""Limits that a graph must keep. Each is one function whose docstring's first line is the sentence the user reads.

A rule takes a Graph and returns its violations; it decides nothing else, and no rule knows of a build or a target.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from emb.graph.model import ABSENT, UNKNOWN, Graph, Operation, Tensor, data_input, producers
from emb.graph.onnx_kinds import INTEGER_PRODUCTS
from emb.graph.vocabulary import PRODUCTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """rule: the function's name.  message: the limit.  operation, tensor: names; empty where none is to blame.

    detail: what was found there, e.g. the dtype.
    """

    rule: str
    message: str
    operation: str = ""
    tensor: str = ""
    detail: str = ""

    def __str__(self) -> str:
        places = [
            f"operation {self.operation}" if self.operation else "",
            f"tensor {self.tensor}" if self.tensor else "",
            self.detail,
        ]
        return ": ".join([self.message, *filter(None, [", ".join(filter(None, places))])])


Rule = Callable[[Graph], tuple[Violation, ...]]


def check(graph: Graph, rules: Iterable[Rule]) -> tuple[Violation, ...]:
    """All violations of all rules, in the order of the rules."""
    return tuple(violation for rule in rules for violation in rule(graph))


def no_float_tensor(graph: Graph, *, kept: Collection[str] = ()) -> tuple[Violation, ...]:
    """An integer-only model must hold no float tensor

    For TFLite. In ONNX the float tensors between DequantizeLinear and QuantizeLinear are how int8 is written down;
    there the rule is every_product_is_quantized.
    kept: names of operations that compute in floats on purpose; what they alone read and write may be float.
    """
    allowed = _tensors_of(graph, kept)
    return tuple(
        _violation(no_float_tensor, operation=_named(operation), tensor=tensor, detail=tensor.dtype)
        for operation, index, tensor in _touched(graph)
        if tensor.is_float and index not in allowed
    )


def every_product_is_quantized(graph: Graph, *, kept: Collection[str] = ()) -> tuple[Violation, ...]:
    """Every convolution and matrix product must take its data and its weights from DequantizeLinear

    For ONNX; operators that multiply integers by themselves (QLinearConv) are quantized as they are.
    kept: names of operations that compute in floats on purpose.
    """
    written_by = producers(graph)
    found = []
    for operation in graph.operations:
        if operation.kind not in PRODUCTS or operation.native in INTEGER_PRODUCTS or operation.name in kept:
            continue
        for index in (data_input(operation), operation.inputs[1] if len(operation.inputs) > 1 else ABSENT):
            source = written_by.get(index)
            if index != ABSENT and (source is None or graph.operations[source].kind != "DEQUANTIZE"):
                tensor = graph.tensors[index]
                found.append(
                    _violation(
                        every_product_is_quantized,
                        operation=f"{operation.native} {operation.name}",
                        tensor=tensor,
                        detail=tensor.dtype,
                    )
                )
    return tuple(found)


def static_shapes(graph: Graph) -> tuple[Violation, ...]:
    """Every tensor must have a shape that is known before the model runs"""
    return tuple(
        _violation(
            static_shapes,
            operation=_named(operation),
            tensor=tensor,
            detail=f"shape {'unknown' if tensor.shape is None else list(tensor.shape)}",
        )
        for operation, _, tensor in _touched(graph)
        if tensor.shape is None or UNKNOWN in tensor.shape
    )


def batch_of_one(graph: Graph) -> tuple[Violation, ...]:
    """The model's inputs and outputs must have a first extent of 1, the batch"""
    return tuple(
        _violation(batch_of_one, tensor=graph.tensors[index], detail=f"shape {graph.tensors[index].shape}")
        for index in (*graph.inputs, *graph.outputs)
        if (graph.tensors[index].shape or (UNKNOWN,))[0] != 1
    )


def single_input_and_output(graph: Graph) -> tuple[Violation, ...]:
    """The model must have one input and one output"""
    if len(graph.inputs) == len(graph.outputs) == 1:
        return ()
    return (_violation(single_input_and_output, detail=f"{len(graph.inputs)} inputs, {len(graph.outputs)} outputs"),)


def no_shape_arithmetic(graph: Graph) -> tuple[Violation, ...]:
    """The graph must not compute shapes while it runs (SHAPE, PACK), which keeps delegates from taking it whole"""
    return tuple(
        _violation(no_shape_arithmetic, operation=_named(operation))
        for operation in graph.operations
        if operation.kind in {"SHAPE", "PACK", "RANK"}
    )


def one_number_format(graph: Graph, *, kept: Collection[str] = ()) -> tuple[Violation, ...]:
    """A model whose inputs and outputs have the activations' number format must convert nothing on the way

    QUANTIZE from int8 to int8 only changes the scale (before a concatenation, say), and is no conversion.
    kept: names of operations that compute in floats on purpose; what is converted for them alone may be.
    """
    allowed = _tensors_of(graph, kept)
    return tuple(
        _violation(
            one_number_format,
            operation=_named(operation),
            tensor=graph.tensors[operation.outputs[0]],
            detail=f"{graph.tensors[operation.inputs[0]].dtype} to {graph.tensors[operation.outputs[0]].dtype}",
        )
        for operation in graph.operations
        if operation.kind in {"QUANTIZE", "DEQUANTIZE", "CAST"}
        and graph.tensors[operation.inputs[0]].dtype != graph.tensors[operation.outputs[0]].dtype
        and not allowed & {operation.inputs[0], operation.outputs[0]}
    )


def no_custom_operation(graph: Graph) -> tuple[Violation, ...]:
    """Every operation must belong to the format's own set; no runtime brings others along"""
    return tuple(
        _violation(no_custom_operation, operation=_named(operation))
        for operation in graph.operations
        if operation.custom
    )


def _named(operation: Operation | None) -> str:
    return f"{operation.kind} {operation.name}" if operation else ""


def _violation(rule: Rule, *, operation: str = "", tensor: Tensor | None = None, detail: str = "") -> Violation:
    return Violation(
        rule=rule.__name__,
        message=(rule.__doc__ or "").strip().split("\n")[0],
        operation=operation,
        tensor=tensor.name if tensor is not None else "",
        detail=detail,
    )


def _tensors_of(graph: Graph, kept: Collection[str]) -> frozenset[int]:
    """The float tensors that operations of these names touch, and no others but what changes the representation."""
    touched: set[int] = set()
    others = {*graph.inputs, *graph.outputs}
    for operation in graph.operations:
        if operation.kind not in {"QUANTIZE", "DEQUANTIZE"}:
            (touched if operation.name in kept else others).update((*operation.inputs, *operation.outputs))
    return frozenset(index for index in touched - others - {ABSENT} if graph.tensors[index].is_float)


def _touched(graph: Graph) -> Iterator[tuple[Operation | None, int, Tensor]]:
    """(first operation that reads or writes it, index, tensor) of each; the border's own come without an operation."""
    seen: set[int] = set()
    for operation in graph.operations:
        for index in (*operation.inputs, *operation.outputs):
            if index != ABSENT and index not in seen:
                seen.add(index)
                yield operation, index, graph.tensors[index]
    for index in (*graph.inputs, *graph.outputs):
        if index not in seen:
            seen.add(index)
            yield None, index, graph.tensors[index]
