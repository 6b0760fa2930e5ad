"""Searches the model that meets a goal and loses least. Knows no unit: what a model costs is the caller's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emb.prune._channel_plan import Found, Try
from emb.prune._channel_queue import Queue
from emb.prune._surgery import smaller

if TYPE_CHECKING:
    import keras


@dataclass(kw_only=True)
class Search:
    """A search while it goes on. tries: every model that was built, in order."""

    model: Any
    queue: Queue
    cost: Callable[[keras.Model], float]
    goal: float
    tries: list[Try] = field(default_factory=list)
    _costs: dict[int, float] = field(default_factory=dict)
    _best: tuple[int, Any] | None = None

    def meets(self, gone: int) -> bool:
        """Whether the model without the first `gone` steps meets the goal; the smallest loss that does is kept."""
        candidate = smaller(self.model, self.queue.graph, self.queue.kept(gone))
        cost = float(self.cost(candidate))
        self._costs[gone] = cost
        self.tries.append(Try(removed=1 - self.queue.macs(gone) / self.queue.macs(0), cost=cost))
        if cost > self.goal:
            return False
        if self._best is None or gone < self._best[0]:
            self._best = gone, candidate
        return True

    def bisect(self, *, tolerance: float, most_tries: int) -> None:
        """Between 0, which does not meet the goal, and all steps, which do; halves the MACs between them."""
        low, high = 0, len(self.queue)
        while high - low > 1 and len(self.tries) < most_tries and self._costs[high] < (1 - tolerance) * self.goal:
            middle = self.queue.nearest((self.queue.macs(low) + self.queue.macs(high)) / 2)
            middle = min(max(middle, low + 1), high - 1)
            if self.meets(middle):
                high = middle
            else:
                low = middle

    def best(self) -> Found:
        assert self._best is not None  # called when a model has met the goal
        gone, model = self._best
        return Found(
            plan=self.queue.plan(self.queue.kept(gone)), model=model, cost=self._costs[gone], tries=tuple(self.tries)
        )
