"""Lays all activations of a graph into one block of memory, as TFLite does before it runs. Runs nothing.

Scratch memory of single kernels and the runtime's own structures come on top, and differ from runtime to runtime.
"""

from __future__ import annotations

from dataclasses import dataclass

from emb.graph.lifetime import Lifetime, lifetimes
from emb.graph.model import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedBuffer:
    """A buffer and where it begins."""

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


def plan(graph: Graph, *, alignment_bytes: int) -> Arena | None:
    """The arena of a graph of batch 1, or None if a shape is open until run time.

    Buffers are placed from the largest to the smallest, each at the lowest offset that none of those alive at the
    same time occupies; of equal ones the first to be written goes first.
    alignment_bytes: 64 in TFLite, 16 in TensorFlow Lite Micro.
    Source: Pisarchyk and Lee 2020, "Efficient memory management for deep neural net inference", greedy by size.
    """
    placed: list[PlacedBuffer] = []
    for lifetime in sorted(lifetimes(graph), key=lambda one: (-(one.storage_bytes or 0), one.first)):
        if (storage_bytes := lifetime.storage_bytes) is None:
            return None
        offset_bytes = _lowest_gap(lifetime, storage_bytes, placed, alignment_bytes)
        placed.append(PlacedBuffer(lifetime=lifetime, offset_bytes=offset_bytes, storage_bytes=storage_bytes))
    alive = [_alive(placed, number) for number in range(len(graph.operations))]
    fullest = max(range(len(alive)), key=alive.__getitem__, default=0)
    return Arena(
        placements=tuple(placed),
        arena_bytes=max((placement.end_bytes for placement in placed), default=0),
        fullest=fullest,
        live_bytes=alive[fullest] if alive else 0,
    )


def _lowest_gap(lifetime: Lifetime, storage_bytes: int, placed: list[PlacedBuffer], alignment_bytes: int) -> int:
    together = [one for one in placed if one.lifetime.first <= lifetime.last and lifetime.first <= one.lifetime.last]
    offset_bytes = 0
    for other in sorted(together, key=lambda one: one.offset_bytes):
        if offset_bytes + storage_bytes <= other.offset_bytes:
            break
        offset_bytes = max(offset_bytes, -(-other.end_bytes // alignment_bytes) * alignment_bytes)
    return offset_bytes


def _alive(placed: list[PlacedBuffer], number: int) -> int:
    return sum(one.storage_bytes for one in placed if one.lifetime.first <= number <= one.lifetime.last)
