"""What a graph costs: parameters, multiply-accumulate operations, bytes of activations. Knows no device and no time.

The figures are those of the graph as it stands in its file and for a batch of one. The same network counts the same in
every format, with two exceptions that are true differences: a converter folds batch normalization into the convolution
before it (fewer parameters), and leaves out a bias that is zero everywhere (an untrained model).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from emb.graph.lifetime import live_bytes
from emb.graph.model import ABSENT, Graph, Operation, Tensor, constants, data_input, producers
from emb.graph.receptive import Field, receptive_fields
from emb.graph.vocabulary import (
    CONVOLUTIONS,
    COUNTED,
    PREPROCESSING,
    REPRESENTATIONS,
    RESAMPLINGS,
    TRANSPOSED_CONVOLUTIONS,
    VIEWS,
    WEIGHTED,
)

_WITHOUT_PARAMETERS = REPRESENTATIONS | VIEWS | RESAMPLINGS | {"CLIP", "PAD", "PADV2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationCost:
    """One operation, by its number in the graph.

    parameters: elements of its weights, biases and learned scales; shared ones count at the first operation alone.
    macs: multiply-accumulate operations of convolutions and matrix products; None if they are unknown.
    activation_bytes: of its outputs; 0 for what is computed from constants alone, None if unknown.
    live_bytes: of all activations alive while it runs, see emb.graph.lifetime; None if unknown.
    field: receptive field of its output; None if unknown.
    """

    number: int
    parameters: int
    macs: int | None
    activation_bytes: int | None
    live_bytes: int | None
    field: Field | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCost:
    """Totals. macs and activation_bytes sum what is known; `uncounted` names the kinds whose macs are not.

    constant_bytes: of all constants, each tensor by itself (a file may store equal ones once).
    peak_live_bytes: the least memory in which the activations can be held, a lower bound; None if unknown.
    """

    operations: tuple[OperationCost, ...]
    parameters: int
    macs: int
    uncounted: tuple[str, ...]
    activation_bytes: int
    constant_bytes: int
    peak_live_bytes: int | None


def cost(graph: Graph) -> GraphCost:
    """The cost of every operation, and the totals."""
    per_operation = operation_parameters(graph)
    fields = receptive_fields(graph)
    live = live_bytes(graph)
    fixed = constants(graph)
    operations = tuple(
        OperationCost(
            number=number,
            parameters=per_operation[number],
            macs=operation_macs(graph, operation),
            activation_bytes=_sum(graph.tensors[i].storage_bytes for i in operation.outputs if i not in fixed),
            live_bytes=live[number],
            field=fields[number],
        )
        for number, operation in enumerate(graph.operations)
    )
    uncounted = {graph.operations[row.number].kind for row in operations if row.macs is None}
    return GraphCost(
        operations=operations,
        parameters=sum(per_operation),
        macs=sum(row.macs or 0 for row in operations),
        uncounted=tuple(sorted(uncounted)),
        activation_bytes=sum(row.activation_bytes or 0 for row in operations),
        constant_bytes=sum(tensor.storage_bytes or 0 for tensor in graph.tensors if tensor.constant),
        peak_live_bytes=None if None in live else max((value or 0 for value in live), default=0),
    )


def parameters(graph: Graph) -> int:
    """The number of parameters of the whole graph, see operation_parameters."""
    return sum(operation_parameters(graph))


def macs(graph: Graph) -> int:
    """Multiply-accumulate operations of the whole graph, of the kinds that are counted; see operation_macs."""
    return sum(operation_macs(graph, operation) or 0 for operation in graph.operations)


def operation_parameters(graph: Graph) -> tuple[int, ...]:
    """The number of parameters of each operation: weights, biases, learned scales and shifts.

    Not counted: shapes, axes, paddings and sizes; scales and zero points of a quantization; single numbers; and what
    only scales pixels, that is constants of sums and products before the first weighted operation.
    """
    fixed = constants(graph)
    origins = _origins(graph, fixed)
    behind_weights: set[int] = set()
    seen: set[int] = set()
    counts = []
    for operation in graph.operations:
        behind = not behind_weights.isdisjoint(operation.inputs)
        if behind or operation.kind in WEIGHTED:
            behind_weights.update(operation.outputs)
        if fixed.issuperset(operation.outputs):
            found: tuple[int, ...] = ()
        elif operation.kind in WEIGHTED:
            found = _weights_and_bias(operation, fixed)
            # A bias goes with its weights: converters store equal biases of several layers once.
            found = () if found and origins[found[0]] in seen else found
        elif operation.kind in _WITHOUT_PARAMETERS or (operation.kind in PREPROCESSING and not behind):
            found = ()
        else:
            candidates = dict.fromkeys(i for i in operation.inputs if i in fixed and origins[i] not in seen)
            found = tuple(i for i in candidates if _is_learned(graph, i, origins[i]))
        seen.update(origins[i] for i in found[:1] if operation.kind in WEIGHTED)
        seen.update(origins[i] for i in found if operation.kind not in WEIGHTED)
        counts.append(sum(graph.tensors[i].elements or 0 for i in found))
    return tuple(counts)


def operation_macs(graph: Graph, operation: Operation) -> int | None:
    """Multiply-accumulate operations of one operation for a batch of one, the bias not counted; None if unknown.

    Convolution: output positions * kernel height * kernel width * input channels / groups * output channels.
    """
    if operation.kind not in COUNTED:
        return None
    if operation.kind == "BATCH_MATMUL":
        return _matrix_product_macs(graph, operation)
    if operation.kind not in WEIGHTED:
        return 0
    if operation.kind in CONVOLUTIONS:
        positions = _positions(graph, graph.tensors[operation.outputs[0]])
    elif operation.kind in TRANSPOSED_CONVOLUTIONS:
        positions = _positions(graph, graph.tensors[data_input(operation)])
    else:
        positions = _rows(graph.tensors[operation.outputs[0]])
    weights = graph.tensors[operation.inputs[1]].elements
    return None if weights is None or positions is None else weights * positions


def _weights_and_bias(operation: Operation, fixed: frozenset[int]) -> tuple[int, ...]:
    bias = operation.inputs[3:4] if operation.kind in TRANSPOSED_CONVOLUTIONS else operation.inputs[2:3]
    return tuple(i for i in (*operation.inputs[1:2], *bias) if i != ABSENT and i in fixed)


def _is_learned(graph: Graph, index: int, origin: int) -> bool:
    """A float or quantized constant with an axis; a single number counts only as a vector, the bias of one unit."""
    tensor, stored = graph.tensors[index], graph.tensors[origin]
    if not (tensor.is_float or stored.is_float or stored.quantization is not None):
        return False
    return tensor.elements != 1 or len(tensor.shape or ()) == 1


def _origins(graph: Graph, fixed: frozenset[int]) -> dict[int, int]:
    """Constant tensor -> the constant of the file that it is made from (weights behind a DEQUANTIZE)."""
    written_by = producers(graph)
    origins = {index: index for index in fixed}
    for index in sorted(fixed & written_by.keys(), key=written_by.__getitem__):
        sources = [i for i in graph.operations[written_by[index]].inputs if i != ABSENT]
        origins[index] = origins[sources[0]]
    return origins


def _positions(graph: Graph, tensor: Tensor) -> int | None:
    """Elements per channel of a tensor that a convolution reads or writes."""
    if tensor.elements is None or not tensor.shape:
        return None
    axis = len(tensor.shape) - 1 if graph.layout == "NHWC" else min(1, len(tensor.shape) - 1)
    channels = tensor.shape[axis]
    return tensor.elements // channels if channels > 0 else 0


def _rows(tensor: Tensor) -> int | None:
    """Vectors in the output of a dense layer."""
    if tensor.elements is None or not tensor.shape:
        return None
    return tensor.elements // tensor.shape[-1] if tensor.shape[-1] > 0 else 0


def _matrix_product_macs(graph: Graph, operation: Operation) -> int | None:
    left, output = graph.tensors[operation.inputs[0]].shape, graph.tensors[operation.outputs[0]].elements
    if left is None or len(left) < 2 or output is None:
        return None
    inner = left[-2] if operation.options.get("adj_x") else left[-1]
    return output * inner if inner >= 0 else None


def _sum(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if None in known else sum(value or 0 for value in known)
