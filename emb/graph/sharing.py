"""Which tensors TFLite keeps in the place of an operation's input, instead of giving them memory. Runs nothing."""

from __future__ import annotations

from collections import Counter

from emb.graph.model import ABSENT, Graph, Operation, constants

UNCHANGED = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "BITCAST"})
"""Operations that pass their input's bytes on. Whoever else reads the input finds it as it was."""

OVERWRITING = frozenset({"ADD", "SUB", "MUL", "DIV", "SOFTMAX"})
"""Operations that may write over one of their first two inputs where nobody else reads it."""

_SCALAR_BYTES = 4


def shared(graph: Graph) -> dict[int, int]:
    """Tensor -> the tensor in whose place it lies, for all that have none of their own.

    Neither the graph's inputs nor its outputs share.
    Source: `ArenaPlanner::IdentifyInPlaceTensors` of TensorFlow Lite 2.14 to 2.20, and the flag `inplace_operator`
    of its kernels.
    """
    readers = Counter(index for operation in graph.operations for index in operation.inputs if index != ABSENT)
    fixed = constants(graph)
    owners: dict[int, int] = {}
    for operation in graph.operations:
        if not operation.outputs or operation.outputs[0] in graph.outputs:
            continue
        for source in _candidates(operation):
            if source == ABSENT or source in fixed or source in graph.inputs:
                continue
            owner = owners.get(source, source)
            if _fits(graph, operation, source, alone=readers[source] <= 1 and readers[owner] <= 1):
                owners[operation.outputs[0]] = owner
                break
    return owners


def _candidates(operation: Operation) -> tuple[int, ...]:
    if operation.kind in UNCHANGED:
        return operation.inputs[:1]
    return operation.inputs[:2] if operation.kind in OVERWRITING else ()


def _fits(graph: Graph, operation: Operation, source: int, *, alone: bool) -> bool:
    storage_bytes = graph.tensors[source].storage_bytes
    if storage_bytes is None or storage_bytes != graph.tensors[operation.outputs[0]].storage_bytes:
        return False
    return operation.kind in UNCHANGED or (alone and storage_bytes > _SCALAR_BYTES)
