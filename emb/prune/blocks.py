"""Whole residual branches go: what they were added to passes on alone, and the model has fewer layers. Trains nothing.

A narrower layer often takes as long as before, as kernels compute channels in blocks; a layer that is gone takes no
time on any runtime. Source: Elkerdawy et al. 2020, "To filter prune, or to layer prune, that is the question"; that a
residual network goes on without some of its branches: Veit et al. 2016, "Residual networks behave like ensembles of
relatively shallow networks". Knows no data set, no file and no target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import ModelError, SpecError
from emb.prune._block_graph import Block, blocks_of
from emb.prune._search import Found, Search
from emb.prune._surgery import set_masks, with_masks, without_branches

if TYPE_CHECKING:
    import keras

__all__ = ["Block", "BlockPlan", "plan_for_goal", "plan_for_macs", "rises", "smaller"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlan:
    """Which residual branches go. A branch is named by the layer that adds it.

    gone: branch -> the layers that go with it.  macs: branch -> how many are its own.  rises: branch -> what `rises`
    said, of all that can go.  untouched: the other sums, and why their branches stay.
    macs_before, macs_after: of the model that the plan is for, by emb.graph.cost.
    """

    gone: Mapping[str, tuple[str, ...]]
    macs: Mapping[str, int]
    rises: Mapping[str, float]
    untouched: Mapping[str, str]
    macs_before: int
    macs_after: int

    def to_json(self) -> dict[str, Any]:
        return {
            "macs_before": self.macs_before,
            "macs_after": self.macs_after,
            "blocks": [
                {
                    "name": name,
                    "layers": list(self.gone.get(name, ())),
                    "macs": self.macs[name],
                    "loss_rise": self.rises[name],
                    "is_gone": name in self.gone,
                }
                for name in self.macs
            ],
            "untouched": dict(self.untouched),
        }


def rises(model: keras.Model, *, loss: Callable[[keras.Model], float]) -> dict[str, float]:
    """By how much the loss rises without each residual branch alone; in order of execution.

    loss: of a model, on images that it was not tested with. It is handed one and the same model, in which another
    branch is 0 at each call. Raises ModelError if no branch can go.
    """
    found = blocks_of(model).found
    masked, masks = with_masks(
        model, {(one.last, 0): (np.full(one.channels, place),) for place, one in enumerate(found)}
    )
    kept = np.ones(len(found), dtype=np.bool_)
    before, told = loss(masked), dict[str, float]()
    for place, block in enumerate(found):
        kept[place] = False
        set_masks(masks, kept)
        kept[place] = True
        told[block.name] = loss(masked) - before
    return told


def plan_for_macs(model: keras.Model, rises: Mapping[str, float], *, removed: float) -> BlockPlan:
    """The plan with the fewest branches that removes at least this fraction of the MACs; removed: above 0, below 1.

    What goes first raises the loss least for the MACs that go with it.
    Raises SpecError for another fraction, or one that cannot be reached, ModelError if no branch can go or the rises
    are another model's.
    """
    if not 0 < removed < 1:
        raise SpecError(
            f"a fraction of {removed:g} of the MACs cannot be removed",
            why="0 would leave the model as it is, 1 would leave nothing of it",
            fix="give a fraction between, e.g. 0.3",
        )
    order = _Order.of(model, rises, per_weight=False)
    for gone in range(1, len(order.blocks) + 1):
        if order.macs(gone) <= (1 - removed) * order.macs(0):
            return order.plan(gone)
    reach = 1 - order.macs(len(order.blocks)) / order.macs(0)
    raise SpecError(
        f"{removed:.1%} of the MACs of {model.name} cannot be removed with residual branches",
        why=f"without all {len(order.blocks)} that can go, {reach:.1%} are removed",
        fix=f"give a fraction of at most {int(reach * 1000) / 1000:g}, or prune channels",
    )


def plan_for_goal(
    model: keras.Model,
    rises: Mapping[str, float],
    *,
    cost: Callable[[keras.Model], float],
    goal: float,
    unit: str = "",
    per_weight: bool = False,
    tolerance: float = 0.02,
    most_tries: int = 10,
) -> Found[BlockPlan]:
    """The model that meets `cost(model) <= goal` with the fewest branches gone; see emb.prune.channels.plan_for_goal.

    per_weight: let go first what raises the loss least for its weights, not for its MACs.
    """
    order = _Order.of(model, rises, per_weight=per_weight)
    search = Search(
        build=lambda gone: without_branches(model, {one.name: one.stays for one in order.blocks[:gone]}),
        macs=order.macs,
        most=len(order.blocks),
        cost=cost,
        goal=goal,
    )
    gone, best = search.run(
        name=model.name,
        unit=unit,
        least="no residual branch left that can go",
        tolerance=tolerance,
        most_tries=most_tries,
    )
    return Found(plan=order.plan(gone), model=best, cost=search.cost_of(gone), tries=tuple(search.tries))


def smaller(model: keras.Model, plan: BlockPlan) -> keras.Model:
    """An ordinary model without the branches of the plan; `model` stays what it is.

    Layers keep their names and weights. Its outputs are those of `model` with these branches 0.
    Raises ModelError if the plan is for another model.
    """
    known = {block.name: block for block in blocks_of(model).found}
    _check_fits(model, plan.macs, known)
    return without_branches(model, {name: known[name].stays for name in plan.gone})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """blocks: all that can go, the first to go first.  left: what the model has after 0, 1, ... of them, in MACs."""

    blocks: tuple[Block, ...]
    left: tuple[int, ...]
    rises: Mapping[str, float]
    untouched: Mapping[str, str]

    @classmethod
    def of(cls, model: keras.Model, rises: Mapping[str, float], *, per_weight: bool) -> _Order:
        from emb.graph.cost import macs
        from emb.graph.keras import read

        all_of_them = blocks_of(model)
        _check_fits(model, rises, [one.name for one in all_of_them.found])

        def worth(block: Block) -> float:
            return rises[block.name] / max(1, block.weights if per_weight else block.macs)

        order = tuple(sorted(all_of_them.found, key=worth))
        whole, gone = macs(read(model)), dict[str, int]()
        left = [whole]
        for block in order:  # a branch may lie within another one
            gone |= {name: all_of_them.macs.get(name, 0) for name in block.layers}
            left.append(whole - sum(gone.values()))
        return cls(blocks=order, left=tuple(left), rises=dict(rises), untouched=all_of_them.untouched)

    def macs(self, gone: int) -> int:
        """Of the model without the first `gone` branches."""
        return self.left[gone]

    def plan(self, gone: int) -> BlockPlan:
        return BlockPlan(
            gone={block.name: block.layers for block in self.blocks[:gone]},
            macs={name: block.macs for name in self.rises for block in self.blocks if block.name == name},
            rises=self.rises,
            untouched=self.untouched,
            macs_before=self.left[0],
            macs_after=self.left[gone],
        )


def _check_fits(model: keras.Model, told: Iterable[str], known: Iterable[str]) -> None:
    if set(told) != set(known):
        raise ModelError(
            f"the residual branches do not fit the model {model.name}",
            why=f"told are {', '.join(told) or 'none'}, and it has {', '.join(known)}",
            fix="measure this model",
        )
