"""Lays all activations of a graph into one block of memory, as a runtime does before it runs. Runs nothing.

Each planner follows its runtime's, so that the block is as large as the runtime's own; what is measured against them
is in benchmarks/README.md. What kernels need besides, and the runtime's own structures, come on top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from emb.graph.lifetime import Lifetime, lifetimes
from emb.graph.model import Graph
from emb.graph.sharing import shared
from emb.spec.target import Arena as ArenaName

TFLITE_ALIGNMENT_BYTES = 64
MICRO_ALIGNMENT_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedBuffer:
    """A buffer and where it begins. storage_bytes: what the planner counts for it, alignment included if it does so."""

    lifetime: Lifetime
    offset_bytes: int
    storage_bytes: int

    @property
    def end_bytes(self) -> int:
        return self.offset_bytes + self.storage_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """arena_bytes: the whole block.  fullest: number of the operation during which most bytes are alive.

    live_bytes: what is alive then, so that arena_bytes - live_bytes is lost to gaps and alignment.
    """

    placements: tuple[PlacedBuffer, ...]
    arena_bytes: int
    fullest: int
    live_bytes: int


def plan(graph: Graph, *, arena: ArenaName) -> Arena | None:
    """The arena of a graph of batch 1, or None if a shape is open until run time.

    arena: whose. "tflite": TensorFlow Lite and LiteRT without a delegate; "tflite-micro": TensorFlow Lite Micro.
    An ONNX graph is laid out by the same rules, over what ONNX Runtime fuses; that runtime's own pool is another.
    Source: Pisarchyk and Lee 2020, "Efficient memory management for deep neural net inference", greedy by size, as
    the two runtimes do it.
    """
    placed = _PLANNERS[arena](graph)
    if placed is None:
        return None
    alive = [_alive(placed, number) for number in range(len(graph.operations))]
    fullest = max(range(len(alive)), key=alive.__getitem__, default=0)
    return Arena(
        placements=tuple(placed),
        arena_bytes=max((placement.end_bytes for placement in placed), default=0),
        fullest=fullest,
        live_bytes=alive[fullest] if alive else 0,
    )


def _plan_micro(graph: Graph) -> list[PlacedBuffer] | None:
    """Every tensor has a place of its own, a multiple of 16 bytes, the largest first; of equal ones the last listed.

    Each goes to the lowest gap that holds it.
    Source: `GreedyMemoryPlanner` and `AllocationInfoBuilder` of TensorFlow Lite Micro.
    """
    placed: list[PlacedBuffer] = []
    found = lifetimes(graph, owners={}) if graph.format == "tflite" else lifetimes(graph)
    for lifetime in sorted(
        found, key=lambda one: (-_aligned(one.storage_bytes or 0, MICRO_ALIGNMENT_BYTES), -one.tensors[0])
    ):
        if lifetime.storage_bytes is None:
            return None
        storage_bytes = _aligned(lifetime.storage_bytes, MICRO_ALIGNMENT_BYTES)
        offset_bytes = 0
        for other in _together(lifetime, placed):
            if offset_bytes + storage_bytes <= other.offset_bytes:
                break
            offset_bytes = max(offset_bytes, other.end_bytes)
        placed.append(PlacedBuffer(lifetime=lifetime, offset_bytes=offset_bytes, storage_bytes=storage_bytes))
    return placed


def _plan_tflite(graph: Graph) -> list[PlacedBuffer] | None:
    """What lives as long as the graph first, then the largest; of equal ones the first written.

    The graph's inputs are never written over. Each buffer goes to the tightest gap that holds it, at a multiple of 64.
    Source: `ArenaPlanner` and `SimpleMemoryArena` of TensorFlow Lite.
    """
    end = max(len(graph.operations) - 1, 0)
    found = list(lifetimes(graph))
    if graph.format == "tflite":
        found = [
            replace(one, last=end) if set(one.tensors) & set(graph.inputs) else one
            for one in lifetimes(graph, owners=shared(graph))
        ]

    def order(one: Lifetime) -> tuple[int, int, int]:
        if set(one.tensors) & {*graph.inputs, *graph.outputs} and (one.first, one.last) == (0, end):
            return (0, one.tensors[0], 0)
        return (1, -(one.storage_bytes or 0), one.first)

    placed: list[PlacedBuffer] = []
    for lifetime in sorted(found, key=order):
        if lifetime.storage_bytes is None:
            return None
        offset_bytes = _tightest_gap(lifetime, lifetime.storage_bytes, placed)
        placed.append(PlacedBuffer(lifetime=lifetime, offset_bytes=offset_bytes, storage_bytes=lifetime.storage_bytes))
    return placed


def _tightest_gap(lifetime: Lifetime, storage_bytes: int, placed: list[PlacedBuffer]) -> int:
    end_bytes, tightest_bytes, best = 0, 0, -1
    for other in _together(lifetime, placed):
        begin_bytes = _aligned(end_bytes, TFLITE_ALIGNMENT_BYTES)
        fits = begin_bytes + storage_bytes <= other.offset_bytes
        if fits and (best < 0 or other.offset_bytes - begin_bytes < tightest_bytes):
            best, tightest_bytes = begin_bytes, other.offset_bytes - end_bytes
        end_bytes = max(end_bytes, other.end_bytes)
    return best if best >= 0 else _aligned(end_bytes, TFLITE_ALIGNMENT_BYTES)


def _together(lifetime: Lifetime, placed: list[PlacedBuffer]) -> list[PlacedBuffer]:
    """Those alive at the same time, from the lowest on."""
    together = (one for one in placed if one.lifetime.first <= lifetime.last and lifetime.first <= one.lifetime.last)
    return sorted(together, key=lambda one: one.offset_bytes)


def _aligned(size_bytes: int, alignment_bytes: int) -> int:
    return -(-size_bytes // alignment_bytes) * alignment_bytes


def _alive(placed: list[PlacedBuffer], number: int) -> int:
    return sum(one.storage_bytes for one in placed if one.lifetime.first <= number <= one.lifetime.last)


_PLANNERS: Mapping[ArenaName, Callable[[Graph], list[PlacedBuffer] | None]] = {
    "tflite": _plan_tflite,
    "tflite-micro": _plan_micro,
}
