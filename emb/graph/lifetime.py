"""When each activation is alive, and the memory that this costs at least. Knows no runtime's allocator.

The figure is a lower bound: no plan that keeps each activation in one place can do with less than the largest sum of
bytes alive at once. Alignment, scratch memory, the runtime's own structures and gaps between buffers come on top.
What needs no memory of its own is not counted: views (RESHAPE), and in ONNX, where a runtime fuses them, the
float side of QUANTIZE and DEQUANTIZE and the activation function behind an operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emb.graph.model import ABSENT, Graph, constants, consumers, producers
from emb.graph.vocabulary import ACTIVATIONS, VIEWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """One buffer, from the operation that writes it to the last that reads it (numbers of operations, both inclusive).

    tensors: those that share the buffer, the first to be written first.
    storage_bytes: of the smallest of them, for a batch of one; None if it is unknown.
    A graph's input is alive from operation 0, its output until the last.
    """

    tensors: tuple[int, ...]
    storage_bytes: int | None
    first: int
    last: int


def lifetimes(graph: Graph, *, owners: Mapping[int, int] | None = None) -> tuple[Lifetime, ...]:
    """The buffers of all activations, in the order in which they are first written. Constants have none.

    owners: tensor -> the tensor in whose buffer it lives, for all that share one; by default what needs no memory
    of its own, see the module.
    """
    owners = _owners(graph) if owners is None else owners
    fixed = constants(graph)
    end = max(len(graph.operations) - 1, 0)
    first: dict[int, int] = {}
    last: dict[int, int] = {}

    def alive(tensor: int, number: int) -> None:
        first.setdefault(tensor, number)
        last[tensor] = number

    for tensor in graph.inputs:
        alive(tensor, 0)
    for number, operation in enumerate(graph.operations):
        for tensor in (*operation.inputs, *operation.outputs):
            if tensor != ABSENT:
                alive(tensor, number)
    for tensor in graph.outputs:
        alive(tensor, end)
    buffers: dict[int, list[int]] = {}
    for tensor in first:
        if tensor not in fixed:
            buffers.setdefault(owners.get(tensor, tensor), []).append(tensor)
    return tuple(
        Lifetime(
            tensors=tuple(tensors),
            storage_bytes=_smallest(graph, tensors),
            first=min(first[tensor] for tensor in tensors),
            last=max(last[tensor] for tensor in tensors),
        )
        for tensors in buffers.values()
    )


def live_bytes(graph: Graph) -> tuple[int | None, ...]:
    """For each operation, the bytes of all activations alive while it runs; None if one of them is unknown."""
    known = [0] * len(graph.operations)
    unknown = [False] * len(graph.operations)
    for lifetime in lifetimes(graph):
        for number in range(lifetime.first, min(lifetime.last + 1, len(known))):
            if lifetime.storage_bytes is None:
                unknown[number] = True
            else:
                known[number] += lifetime.storage_bytes
    return tuple(None if hidden else total for total, hidden in zip(known, unknown, strict=True))


def _smallest(graph: Graph, tensors: list[int]) -> int | None:
    """A quantized value and its float stand-in share the quantized value's bytes."""
    sizes = [graph.tensors[tensor].storage_bytes for tensor in tensors]
    known = [size for size in sizes if size is not None]
    return min(known) if len(known) == len(sizes) else None


def _owners(graph: Graph) -> dict[int, int]:
    """Tensor -> the tensor in whose buffer it lives, for all that share one."""
    owners: dict[int, int] = {}
    fixed = constants(graph)
    readers = consumers(graph)
    writers = producers(graph)
    for operation in graph.operations:
        if not operation.inputs or len(operation.outputs) != 1 or operation.inputs[0] in {ABSENT, *fixed}:
            continue
        source, target = operation.inputs[0], operation.outputs[0]
        shared = operation.kind in VIEWS
        if graph.format == "onnx" and not shared:
            # What the model itself receives or returns exists as it is; the rest a runtime fuses.
            inner = source in writers and source not in graph.outputs and len(readers[source]) == 1
            returned = target in graph.outputs
            shared = (
                (operation.kind == "DEQUANTIZE" and not returned)
                or (operation.kind in ACTIVATIONS and inner and not returned)
                or (operation.kind == "QUANTIZE" and inner)
            )
        if shared:
            owners[target] = owners.get(source, source)
    return owners
