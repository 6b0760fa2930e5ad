"""The trade-off frontier against its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emb.report.frontier import frontier

POINTS = st.lists(st.tuples(st.none() | st.integers(0, 6), st.none() | st.integers(0, 6)), max_size=12)


def test_what_lies_on_it() -> None:
    # Small and bad, large and good, dominated by the second, as good as the second and larger.
    assert frontier([10, 20, 30, 25], [0.8, 0.9, 0.85, 0.9]) == [True, True, False, False]


def test_equals_are_on_it_together() -> None:
    assert frontier([10, 10, 10], [0.9, 0.9, 0.8]) == [True, True, False]


def test_what_was_not_measured_is_not_on_it() -> None:
    assert frontier([None, 10, 10], [0.9, None, 0.1]) == [False, False, True]


def test_costs_that_chance_may_have_ordered_are_equal() -> None:
    assert frontier([7.752, 7.737], [0.97, 0.97], equal_within=0.01) == [True, True]
    assert frontier([7.9, 7.737], [0.97, 0.97], equal_within=0.01) == [False, True]
    # As fast, and more accurate.
    assert frontier([8.572, 8.578], [0.98705, 0.9871], equal_within=0.01) == [False, True]
    assert frontier([8.4, 8.578], [0.98705, 0.9871], equal_within=0.01) == [True, True]


@given(points=POINTS, share=st.floats(0, 1))
def test_something_is_always_on_it(points: list[tuple[int | None, int | None]], share: float) -> None:
    on = frontier([cost for cost, _ in points], [gain for _, gain in points], equal_within=share)
    assert any(on) is any(cost is not None and gain is not None for cost, gain in points)


@given(points=POINTS)
def test_nothing_on_it_is_beaten_and_all_else_is(points: list[tuple[int | None, int | None]]) -> None:
    costs, gains = [cost for cost, _ in points], [gain for _, gain in points]
    on = frontier(costs, gains)
    known = [(cost, gain) for cost, gain in points if cost is not None and gain is not None]
    for (cost, gain), is_on in zip(points, on, strict=True):
        if cost is None or gain is None:
            assert not is_on
            continue
        beaten = [other for other in known if other != (cost, gain) and other[0] <= cost and other[1] >= gain]
        assert is_on is not bool(beaten)
    assert any(on) is bool(known)
