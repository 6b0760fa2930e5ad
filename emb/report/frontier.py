"""The trade-off frontier: what nothing else beats in both of two respects. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def frontier(costs: Sequence[float | None], gains: Sequence[float | None], *, equal_within: float = 0.0) -> list[bool]:
    """Whether each point is on it: no other has at most its cost and at least its gain, and one of them better.

    A point without a cost or a gain is not. Equal points are on it together.
    equal_within: costs that differ by no larger share are equal, as measured ones are that chance may have ordered.
    """
    near = 1 + equal_within
    known = [(cost, gain) for cost, gain in zip(costs, gains, strict=True) if cost is not None and gain is not None]
    return [
        cost is not None
        and gain is not None
        and not any(
            other <= near * cost and value >= gain and (near * other < cost or value > gain) for other, value in known
        )
        for cost, gain in zip(costs, gains, strict=True)
    ]
