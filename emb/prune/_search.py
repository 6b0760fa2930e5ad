"""Searches the model that meets a goal and loses least. Knows no unit: what a model costs is the caller's.

Nor does it know what goes: it is given ever smaller models, by number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from emb.errors import SpecError

if TYPE_CHECKING:
    import keras

Plan = TypeVar("Plan", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One model of a search. removed: share of the MACs.  cost: what the caller's function said of it."""

    removed: float
    cost: float


@dataclass(frozen=True, kw_only=True)
class Found(Generic[Plan]):
    """The model that meets a goal and loses least of those that were tried."""

    plan: Plan
    model: keras.Model
    cost: float
    tries: tuple[Try, ...]


@dataclass(kw_only=True)
class Search:
    """A search while it goes on. Steps lead from the model, 0, to the smallest, `most`.

    build: the model behind so many steps.  macs: of that model, without building it; they fall with every step.
    tries: every model that was built, in order.
    """

    build: Callable[[int], keras.Model]
    macs: Callable[[int], int]
    most: int
    cost: Callable[[keras.Model], float]
    goal: float
    tries: list[Try] = field(default_factory=list)
    _costs: dict[int, float] = field(default_factory=dict)
    _best: tuple[int, Any] | None = None

    def run(self, *, name: str, unit: str, least: str, tolerance: float, most_tries: int) -> tuple[int, keras.Model]:
        """(steps, model) of the fewest steps that meet the goal.

        name: of the model, unit: of the goal, and least: what the smallest has left, for messages.
        tolerance: a cost between (1 - tolerance) * goal and goal ends the search, as do `most_tries` models.
        Raises SpecError for a goal that is not above 0 or that the smallest model does not meet, telling what it costs.
        """
        said = f"{self.goal:g}{unit and ' ' + unit}"
        if not (self.goal > 0 and math.isfinite(self.goal)):
            raise SpecError(f"{said} is no goal", fix="give a number above 0")
        if not (self._meets(0) or self._meets(self.most)):
            nearest = min(self.tries, key=lambda one: one.cost)
            raise SpecError(
                f"{name} cannot be pruned to {said}",
                why=f"the nearest that was reached is {nearest.cost:g}{unit and ' ' + unit}, with "
                f"{nearest.removed:.1%} of the MACs removed and {least}",
                fix="choose a larger goal, or a smaller architecture",
            )
        if self._costs[0] > self.goal:
            self._bisect(tolerance=tolerance, most_tries=most_tries)
        assert self._best is not None  # the last model has met the goal, if not the first
        return self._best

    def cost_of(self, gone: int) -> float:
        """Of a model that was tried."""
        return self._costs[gone]

    def _meets(self, gone: int) -> bool:
        """Whether the model behind so many steps meets the goal; the smallest loss that does is kept."""
        candidate = self.build(gone)
        cost = float(self.cost(candidate))
        self._costs[gone] = cost
        self.tries.append(Try(removed=1 - self.macs(gone) / self.macs(0), cost=cost))
        if cost > self.goal:
            return False
        if self._best is None or gone < self._best[0]:
            self._best = gone, candidate
        return True

    def _bisect(self, *, tolerance: float, most_tries: int) -> None:
        """Between 0, which does not meet the goal, and all steps, which do; halves the MACs between them."""
        low, high = 0, self.most
        while high - low > 1 and len(self.tries) < most_tries and self._costs[high] < (1 - tolerance) * self.goal:
            middle = nearest(self.macs, self.most, (self.macs(low) + self.macs(high)) / 2)
            middle = min(max(middle, low + 1), high - 1)
            if self._meets(middle):
                high = middle
            else:
                low = middle


def nearest(macs: Callable[[int], int], most: int, wanted: float) -> int:
    """How many of `most` steps bring a model nearest to this many MACs, which fall with every one."""
    low, high = 0, most  # macs(low) is above what is wanted, or low is 0; macs(high) is not, or high is all
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if macs(middle) > wanted else (low, middle)
    return min((low, high), key=lambda gone: (abs(macs(gone) - wanted), gone))
