"""The arena: no two buffers that are alive together share a byte, and none begins off the alignment."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from emb.graph.arena import Arena, plan
from emb.graph.model import Graph, Operation, Tensor

SIZES = st.lists(st.integers(1, 300), min_size=2, max_size=12)


def chain(sizes: list[int], *, shortcuts: list[tuple[int, int]] = (), dtype: str = "int8") -> Graph:
    """Operation n reads tensor n and writes n + 1; a shortcut (a, b) has operation b read tensor a as well."""
    tensors = tuple(Tensor(name=str(number), shape=(1, size), dtype=dtype) for number, size in enumerate(sizes))
    operations = tuple(
        Operation(
            kind="ADD",
            name=f"add{number}",
            native="ADD",
            inputs=(number, *(a for a, b in shortcuts if b == number and a < number)),
            outputs=(number + 1,),
        )
        for number in range(len(sizes) - 1)
    )
    return Graph(
        name="chain",
        format="tflite",
        layout="NHWC",
        tensors=tensors,
        operations=operations,
        inputs=(0,),
        outputs=(len(sizes) - 1,),
    )


def planned(graph: Graph, *, alignment_bytes: int = 16) -> Arena:
    arena = plan(graph, alignment_bytes=alignment_bytes)
    assert arena is not None
    return arena


@given(
    sizes=SIZES,
    shortcuts=st.lists(st.tuples(st.integers(0, 10), st.integers(1, 10)), max_size=4),
    alignment_bytes=st.sampled_from([1, 16, 64]),
)
def test_nothing_overlaps(sizes: list[int], shortcuts: list[tuple[int, int]], alignment_bytes: int) -> None:
    arena = planned(chain(sizes, shortcuts=shortcuts), alignment_bytes=alignment_bytes)
    for one, other in combinations(arena.placements, 2):
        together = one.lifetime.first <= other.lifetime.last and other.lifetime.first <= one.lifetime.last
        apart = one.end_bytes <= other.offset_bytes or other.end_bytes <= one.offset_bytes
        assert apart or not together
    assert all(placement.offset_bytes % alignment_bytes == 0 for placement in arena.placements)
    assert arena.live_bytes <= arena.arena_bytes <= sum(sizes) + alignment_bytes * len(sizes)


def test_a_chain_needs_its_largest_neighbours() -> None:
    arena = planned(chain([64, 128, 256, 32]))
    assert (arena.arena_bytes, arena.live_bytes, arena.fullest) == (384, 384, 1)


def test_a_shortcut_keeps_its_tensor_alive() -> None:
    """While operation 2 works, the shortcut from tensor 0 lies beside both maps."""
    assert planned(chain([64, 64, 64, 64])).arena_bytes == 128
    assert planned(chain([64, 64, 64, 64], shortcuts=[(0, 2)])).arena_bytes == 192


def test_alignment_costs_gaps() -> None:
    assert planned(chain([10, 10]), alignment_bytes=1).arena_bytes == 20
    assert planned(chain([10, 10]), alignment_bytes=64).arena_bytes == 74


def test_an_open_shape_has_no_plan() -> None:
    graph = chain([4, 4])
    tensors = (graph.tensors[0], Tensor(name="1", shape=(1, -1), dtype="int8"))
    opened = Graph(
        name="open",
        format="tflite",
        layout="NHWC",
        tensors=tensors,
        operations=graph.operations,
        inputs=(0,),
        outputs=(1,),
    )
    assert plan(opened, alignment_bytes=16) is None
