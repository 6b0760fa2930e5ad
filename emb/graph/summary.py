"""A network in one row of a table: its convolutions and its dense layers, what they span, hold and multiply.

Pure functions over a graph of any format. Knows no published figure and no architecture's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from emb.graph.cost import operation_macs, operation_parameters
from emb.graph.model import ABSENT, Graph, Operation, constants, data_input, producers
from emb.graph.vocabulary import ACTIVATIONS, CONVOLUTIONS, REPRESENTATIONS, TRANSPOSED_CONVOLUTIONS, VIEWS

Pair = tuple[int, int]

CONVOLVING = (CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS) - {"CONV_3D"}
_KEEPING = VIEWS | ACTIVATIONS | REPRESENTATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """The convolutions of a network, or its dense layers. Every tuple is sorted and holds each value once.

    kernels: (height, width); of a dense layer the map that it flattens, (1, 1) where it reads a vector.
    channels: inputs of one filter, so of its group alone in a grouped convolution.  filters: outputs.
    strides: (height, width); none for dense layers.
    weights: elements of the kernels, biases and normalization not counted.  macs: see emb.graph.cost.
    """

    layers: int
    kernels: tuple[Pair, ...]
    channels: tuple[int, ...]
    filters: tuple[int, ...]
    strides: tuple[Pair, ...]
    weights: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """convolution_depth: convolutions on the path from an input to an output that has most of them.

    depth: the same for convolutions and dense layers together.  single_path: see `is_single_path`.

    parameters: all that the model holds for its layers, moving statistics of batch normalization included.
    trainable: without these.  macs: of convolutions and matrix products, one image.
    """

    convolution: LayerGroup
    dense: LayerGroup
    convolution_depth: int
    depth: int
    single_path: bool
    parameters: int
    trainable: int
    macs: int


@dataclass(frozen=True, slots=True)
class _Layer:
    kernel: Pair
    channels: int
    filters: int
    stride: Pair | None
    weights: int
    macs: int


def summarise(graph: Graph) -> Summary:
    """The summary of a graph. What is unknown (a shape that is open until run time) counts as nothing."""
    convolutions = [_convolution(graph, operation) for operation in graph.operations if operation.kind in CONVOLVING]
    dense = [_dense(graph, operation) for operation in graph.operations if operation.kind == "FULLY_CONNECTED"]
    counts = operation_parameters(graph)
    return Summary(
        convolution=_group(convolutions),
        dense=_group(dense),
        convolution_depth=convolution_depth(graph),
        depth=_depth(graph, CONVOLVING | {"FULLY_CONNECTED"}),
        single_path=is_single_path(graph),
        parameters=sum(counts),
        trainable=sum(counts) - moving_statistics(graph),
        macs=sum(operation_macs(graph, operation) or 0 for operation in graph.operations),
    )


def convolution_depth(graph: Graph) -> int:
    """The number of convolutions on the path through the graph that has most of them."""
    return _depth(graph, CONVOLVING)


def is_single_path(graph: Graph) -> bool:
    """Whether each operation works on what the one before it wrote: no branch, no shortcut, no second output."""
    fixed = constants(graph)
    read = [[index for index in operation.inputs if index not in fixed | {ABSENT}] for operation in graph.operations]
    readers = Counter(index for indices in read for index in indices)
    return all(len(indices) <= 1 for indices in read) and max(readers.values(), default=0) <= 1


def moving_statistics(graph: Graph) -> int:
    """Elements of the means and variances that batch normalization keeps: parameters that no gradient reaches.

    They are the last two inputs of the operation in Keras and in ONNX; a converter to TFLite folds them away.
    """
    fixed = constants(graph)
    found = {
        index
        for operation in graph.operations
        if operation.kind == "BATCH_NORMALIZATION"
        for index in operation.inputs[-2:]
        if index in fixed
    }
    return sum(graph.tensors[index].elements or 0 for index in found)


def first_convolution(graph: Graph) -> Operation | None:
    """The first operation with kernels that slide over an image, or None."""
    return next((operation for operation in graph.operations if operation.kind in CONVOLVING), None)


def _depth(graph: Graph, kinds: frozenset[str]) -> int:
    depth: dict[int, int] = {}
    for operation in graph.operations:
        before = max((depth.get(index, 0) for index in operation.inputs if index != ABSENT), default=0)
        depth.update(dict.fromkeys(operation.outputs, before + (operation.kind in kinds)))
    return max(depth.values(), default=0)


def _convolution(graph: Graph, operation: Operation) -> _Layer:
    kernel = operation.pair("kernel")
    weights = graph.tensors[operation.inputs[1]].elements or 0
    shape = graph.tensors[operation.outputs[0]].shape or ()
    filters = shape[-1 if graph.layout == "NHWC" else 1] if len(shape) > 2 else 0
    return _Layer(
        kernel=kernel,
        # However the format lays them out, the kernels hold height * width * channels * filters elements.
        channels=weights // max(kernel[0] * kernel[1] * filters, 1),
        filters=filters,
        stride=operation.pair("stride"),
        weights=weights,
        macs=operation_macs(graph, operation) or 0,
    )


def _dense(graph: Graph, operation: Operation) -> _Layer:
    weights = graph.tensors[operation.inputs[1]].elements or 0
    filters = (graph.tensors[operation.outputs[0]].shape or (0,))[-1]
    kernel = _flattened(graph, data_input(operation))
    return _Layer(
        kernel=kernel,
        channels=weights // max(kernel[0] * kernel[1] * filters, 1),
        filters=filters,
        stride=None,
        weights=weights,
        macs=operation_macs(graph, operation) or 0,
    )


def _flattened(graph: Graph, tensor: int) -> Pair:
    """(height, width) of the maps that were flattened into `tensor`; (1, 1) if it was a vector from the start."""
    written_by = producers(graph)
    while True:
        shape = graph.tensors[tensor].shape or ()
        writer = graph.operations[written_by[tensor]].kind if tensor in written_by else ""
        # ONNX transposes maps before it flattens them as Keras does.
        if len(shape) == 4 and writer != "TRANSPOSE":
            height, width = shape[1:3] if graph.layout == "NHWC" else shape[2:]
            return max(height, 1), max(width, 1)
        if writer not in _KEEPING | {"TRANSPOSE"}:
            return 1, 1
        tensor = data_input(graph.operations[written_by[tensor]])


def _group(layers: list[_Layer]) -> LayerGroup:
    return LayerGroup(
        layers=len(layers),
        kernels=_distinct(layer.kernel for layer in layers),
        channels=tuple(sorted({layer.channels for layer in layers})),
        filters=tuple(sorted({layer.filters for layer in layers})),
        strides=_distinct(layer.stride for layer in layers if layer.stride is not None),
        weights=sum(layer.weights for layer in layers),
        macs=sum(layer.macs for layer in layers),
    )


def _distinct(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    return tuple(sorted(set(pairs)))
