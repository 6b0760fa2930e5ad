"""benchmarks/verdict.py: what becomes of known cases."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

_SPEC = importlib.util.spec_from_file_location("verdict", Path(__file__).parents[2] / "benchmarks" / "verdict.py")
assert _SPEC is not None
assert _SPEC.loader is not None
module = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(module)

FEW = st.integers(0, 40)


def pair(both: int, first_alone: int, second_alone: int, neither: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two classifiers that are right on so many images."""
    first = [True] * (both + first_alone) + [False] * (second_alone + neither)
    second = [True] * both + [False] * first_alone + [True] * second_alone + [False] * neither
    return np.array(first, dtype=bool), np.array(second, dtype=bool)


@given(both=FEW, first_alone=FEW, second_alone=FEW)
def test_the_verdict_turns_with_the_sides(both: int, first_alone: int, second_alone: int) -> None:
    first, second = pair(both, first_alone, second_alone, 1)
    words = {
        side.partition(":")[0] for side in (module.verdict(first, {"x": second}), module.verdict(second, {"x": first}))
    }
    assert words in ({"equal"}, {"best", "worse"})
    assert (words == {"equal"}) == (module.chance(first, second) >= module.CHANCE)


def test_worse_if_a_single_peer_is_better() -> None:
    """However many others are behind."""
    ours, better = pair(80, 1, 12, 7)
    assert module.verdict(ours, {"weak": np.zeros(100, dtype=bool), "strong": better}) == (
        "worse: -11 images against strong, p = 0.0034"
    )


def test_best_only_if_every_peer_is_behind() -> None:
    ours, behind = pair(80, 12, 1, 7)
    assert module.verdict(ours, {"one": behind, "none": np.zeros(100, dtype=bool)}) == (
        "best: +11 images against one, p = 0.0034"
    )
    assert module.verdict(ours, {"one": behind, "same": ours}) == "equal: +0 images against same, p = 1"


def test_a_difference_that_may_be_chance() -> None:
    ours, theirs = pair(80, 4, 6, 10)
    assert module.verdict(ours, {"x": theirs}) == "equal: -2 images against x, p = 0.75"


def test_a_chance_too_small_for_a_float_is_not_zero() -> None:
    ours, theirs = pair(1, 3000, 1, 1)
    assert module.verdict(ours, {"x": theirs}) == "best: +2999 images against x, p < 1e-300"


def test_without_a_peer_there_is_no_verdict() -> None:
    assert module.verdict(np.ones(3, dtype=bool), {}) == "no peer"
