"""The arena: no two buffers that are alive together share a byte, and each planner follows its runtime's rules.

That the blocks are as large as the runtimes' own is measured in tests/pipeline/test_activation_memory.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emb.graph.arena import MICRO_ALIGNMENT_BYTES, TFLITE_ALIGNMENT_BYTES, Arena, plan
from emb.graph.model import Graph, Operation, Tensor
from emb.graph.sharing import shared
from emb.spec.target import Arena as ArenaName

SIZES = st.lists(st.integers(1, 300), min_size=2, max_size=12)
ALIGNMENTS: dict[ArenaName, int] = {"tflite": TFLITE_ALIGNMENT_BYTES, "tflite-micro": MICRO_ALIGNMENT_BYTES}


def chain(
    sizes: Sequence[int], *, shortcuts: Sequence[tuple[int, int]] = (), kinds: Sequence[str] = (), dtype: str = "int8"
) -> Graph:
    """Operation n reads tensor n and writes n + 1; a shortcut (a, b) has operation b read tensor a as well.

    kinds: of the operations; those that are not given are poolings.
    """
    tensors = tuple(Tensor(name=str(number), shape=(1, size), dtype=dtype) for number, size in enumerate(sizes))
    operations = tuple(
        Operation(
            kind=kinds[number] if number < len(kinds) else "MAX_POOL_2D",
            name=f"operation{number}",
            native="",
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


def planned(graph: Graph, arena: ArenaName = "tflite-micro") -> Arena:
    found = plan(graph, arena=arena)
    assert found is not None
    return found


@given(
    sizes=SIZES,
    shortcuts=st.lists(st.tuples(st.integers(0, 10), st.integers(1, 10)), max_size=4),
    kinds=st.lists(st.sampled_from(["MAX_POOL_2D", "ADD", "RESHAPE"]), max_size=11),
    arena=st.sampled_from(sorted(ALIGNMENTS)),
)
def test_nothing_overlaps(
    sizes: list[int], shortcuts: list[tuple[int, int]], kinds: list[str], arena: ArenaName
) -> None:
    found = planned(chain(sizes, shortcuts=shortcuts, kinds=kinds), arena)
    for one, other in combinations(found.placements, 2):
        together = one.lifetime.first <= other.lifetime.last and other.lifetime.first <= one.lifetime.last
        apart = one.end_bytes <= other.offset_bytes or other.end_bytes <= one.offset_bytes
        assert apart or not together
    alignment_bytes = ALIGNMENTS[arena]
    assert all(placement.offset_bytes % alignment_bytes == 0 for placement in found.placements)
    assert found.live_bytes <= found.arena_bytes <= sum(sizes) + alignment_bytes * len(sizes)


def test_a_chain_needs_its_largest_neighbours() -> None:
    found = planned(chain([64, 128, 256, 32]))
    assert (found.arena_bytes, found.live_bytes, found.fullest) == (384, 384, 1)


def test_a_shortcut_keeps_its_tensor_alive() -> None:
    """While operation 2 works, the shortcut from tensor 0 lies beside both maps."""
    assert planned(chain([64, 64, 64, 64])).arena_bytes == 128
    assert planned(chain([64, 64, 64, 64], shortcuts=[(0, 2)])).arena_bytes == 192


def test_only_tflite_keeps_the_graphs_input() -> None:
    """The input of 64 bytes is dead behind the first operation; TFLite leaves it untouched all the same."""
    assert planned(chain([64, 128, 256, 128])).arena_bytes == 384
    assert planned(chain([64, 128, 256, 128]), "tflite").arena_bytes == 448


def test_alignment_costs_gaps() -> None:
    assert planned(chain([10, 10])).arena_bytes == 32
    assert planned(chain([10, 10]), "tflite").arena_bytes == 74


def test_of_equal_buffers_tflite_micro_places_the_last_first() -> None:
    """Tensors 1 and 2 are equal: 2 gets the beginning, and tensor 3, which lives beside it, must go above."""
    found = planned(chain([16, 64, 64, 32]))
    offsets = {one.lifetime.tensors[0]: one.offset_bytes for one in found.placements}
    assert offsets == {2: 0, 1: 64, 3: 64, 0: 0}


@pytest.mark.parametrize(
    ("kind", "sizes", "shortcuts", "expected"),
    [
        ("RESHAPE", [64, 32, 32, 8], [], {2: 1}),
        ("RESHAPE", [64, 32, 32, 8], [(1, 2)], {2: 1}),  # whoever reads it later finds it unchanged
        ("ADD", [64, 32, 32, 8], [], {2: 1}),
        ("ADD", [64, 32, 32, 8], [(1, 2)], {}),  # tensor 1 is read once more
        ("ADD", [64, 32, 16, 8], [], {}),
        ("ADD", [64, 4, 4, 8], [], {}),  # too small to be worth it
        ("MAX_POOL_2D", [64, 32, 32, 8], [], {}),
    ],
)
def test_what_tflite_keeps_in_its_inputs_place(
    kind: str, sizes: list[int], shortcuts: list[tuple[int, int]], expected: dict[int, int]
) -> None:
    assert shared(chain(sizes, shortcuts=shortcuts, kinds=["MAX_POOL_2D", kind])) == expected


@pytest.mark.parametrize("kinds", [["RESHAPE"], ["MAX_POOL_2D", "MAX_POOL_2D", "RESHAPE"]])
def test_neither_the_graphs_input_nor_its_output_is_shared(kinds: list[str]) -> None:
    assert shared(chain([32, 32, 32, 32], kinds=kinds)) == {}


def test_a_chain_of_shared_buffers_is_one() -> None:
    graph = chain([64, 32, 32, 32, 8], kinds=["MAX_POOL_2D", "ADD", "RESHAPE", "MAX_POOL_2D"])
    assert shared(graph) == {2: 1, 3: 1}
    assert planned(graph, "tflite").arena_bytes == 64 + 64 + 8
    assert planned(graph).arena_bytes == 96


@pytest.mark.parametrize("arena", sorted(ALIGNMENTS))
def test_an_open_shape_has_no_plan(arena: ArenaName) -> None:
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
    assert plan(opened, arena=arena) is None
