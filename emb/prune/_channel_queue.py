"""The order in which channels go, and how far to go for a number of multiplications. Builds no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import ModelError
from emb.prune._channel_graph import ChannelGraph, Group, Kept, prunable
from emb.prune._channel_macs import MacCounter
from emb.prune._channel_plan import ChannelPlan, Scope, Scores
from emb.prune._dense_layers import dense_layers
from emb.prune._search import nearest

# No group loses more: one that is left without channels ends the network. Tanaka et al. 2020, "Pruning neural networks
# without any data by iteratively conserving synaptic flow", section 3, call it layer collapse.
LEAST_KEPT = 0.1
# A group too narrow to lose a block of as many channels goes in smaller parts; of larger blocks it stays whole.
NARROW = 16
# What a count may miss its goal by, as a share of all MACs, before a channel that is worth more goes for one that is
# worth less.
NEAR = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """steps: the numbers of decisions that may go, in the order in which they go; those of a step go together.

    The rest of `graph` stays.
    unscored: groups that stay because the criterion says nothing of them, and why.
    """

    graph: ChannelGraph
    counter: MacCounter
    steps: tuple[tuple[int, ...], ...]
    unscored: dict[str, str]

    @classmethod
    def of(cls, model: Any, scores: Scores, *, scope: Scope, multiple: int, per_weight: bool = False) -> Queue:
        """multiple: see emb.prune.channels.plan_for_macs.  per_weight: see emb.prune.channels.plan_for_goal.

        Raises ModelError if the scores are another model's, or if no channel can go.
        """
        graph = prunable(model)
        counter = MacCounter.of(model, graph)
        weights = counter.weights_of_each(graph)
        # A goal in bytes compares all by the weights that go with them, and "uniform" takes from every group.
        layers_go = multiple > 1 and scope == "global" and not per_weight
        layers = _layers(graph, scores) if layers_go else ()
        going = set(chain.from_iterable(layers))
        ranked = []
        for place, group in enumerate(graph.groups):
            if group.name in scores.unscored:
                continue
            values = np.array(scores.groups.get(group.name, ()), dtype=np.float64)
            _check_fits(group, values, model.name)
            if going.issuperset(group.decisions.tolist()):
                continue
            order = np.argsort(values, kind="stable")
            if scope == "global" and per_weight:
                ranks = _worth(values, scores) / np.maximum(weights[group.decisions], 1)
            else:
                ranks = _ranks(values, order, scope=scope)
            # The means of a sorted group's parts rise, so that its steps keep their order among those of all groups.
            for number, step in enumerate(_parts(order, _at_once(group, multiple))):
                ranked.append((float(ranks[step].mean()), place, number, tuple(group.decisions[step].tolist())))
        return cls(
            graph=graph,
            counter=counter,
            steps=(*layers, *(step for *_, step in sorted(ranked))),
            unscored=dict(scores.unscored),
        )

    def __len__(self) -> int:
        return len(self.steps)

    def kept(self, gone: int) -> Kept:
        """For each channel whether it stays when the first `gone` steps are carried out."""
        kept = self.graph.everything()
        kept[list(chain.from_iterable(self.steps[:gone]))] = False
        return kept

    def macs(self, gone: int) -> int:
        return self.counter.macs(self.kept(gone))

    def closest(self, macs: float) -> Kept:
        """Which channels stay for about this many MACs: behind the steps that come nearest, where that is near enough.

        What goes at once in a wide layer may be a tenth of all MACs. Where it would go too far beyond the goal, its
        group waits, and the next ones in the queue go, until the goal is near.
        """
        gone, near = nearest(self.macs, len(self), macs), NEAR * self.macs(0)
        best, best_miss = self.kept(gone), abs(self.macs(gone) - macs)
        short = gone if self.macs(gone) > macs else max(gone - 1, 0)
        kept, waiting = self.kept(short), set[int]()
        groups = {int(one): place for place, group in enumerate(self.graph.groups) for one in group.decisions}
        for step in self.steps[short:]:
            if best_miss <= near:
                break
            if groups[step[0]] in waiting:
                continue
            without = kept.copy()
            without[list(step)] = False
            left = self.counter.macs(without)
            if abs(left - macs) < best_miss:
                best, best_miss = without, abs(left - macs)
            if left < macs:
                waiting.add(groups[step[0]])
            else:
                kept = without
        return best

    def plan_for(self, macs: float) -> ChannelPlan:
        return self.plan(self.closest(macs))

    def plan(self, kept: Kept) -> ChannelPlan:
        groups = self.graph.groups
        return ChannelPlan(
            kept={group.name: _kept_channels(group, kept) for group in groups},
            channels={group.name: sum(map(len, group.channels)) for group in groups},
            tied={group.name: group.layers for group in groups},
            untouched={**self.graph.untouched, **self.unscored},
            macs_before=self.macs(0),
            macs_after=self.counter.macs(kept),
        )

    def whole_ones(self) -> str:
        """The end of a sentence that names what cannot go at all; empty if all can."""
        names = [*self.graph.untouched, *self.unscored]
        if not names:
            return ""
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        return f"; {shown} cannot be pruned at all"


def _layers(graph: ChannelGraph, scores: Scores) -> tuple[tuple[int, ...], ...]:
    """The decisions that go with each layer that can go as a whole, the least worth first, but for a tenth of them."""
    unscored = {one for group in graph.groups if group.name in scores.unscored for one in group.decisions.tolist()}
    found = {name: whole for name, whole in dense_layers(graph).items() if name in scores.wholes}
    order = sorted((name for name in found if unscored.isdisjoint(found[name])), key=lambda name: scores.wholes[name])
    return tuple(found[name] for name in order[: len(order) - math.ceil(LEAST_KEPT * len(order))])


def _at_once(group: Group, multiple: int) -> int:
    """How many decisions of a group go together, so that what is left is a multiple.

    Where the group has less than twice a multiple of at most NARROW: half of it, or a quarter, and so on.
    """
    while 1 < multiple <= NARROW and sum(map(len, group.channels)) < 2 * multiple:
        multiple //= 2
    return max(1, multiple // len(group.channels[0]))


def _parts(order: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    """What of a group goes, least first, in parts each of which leaves a multiple of `size`."""
    count = len(order)
    least = max(size, math.ceil(LEAST_KEPT * count))
    left = [count, *(one for one in range((count - 1) // size * size, 0, -size) if one >= least)]
    return [order[count - before : count - after] for before, after in pairwise(left)]


def _ranks(values: NDArray[np.float64], order: NDArray[np.intp], *, scope: Scope) -> NDArray[np.float64]:
    """By what decisions of different groups are compared, see emb.prune.channels.plan_for_macs."""
    if scope == "global":
        return values / (values.mean() or 1.0)
    ranks = np.empty(len(order))
    ranks[order] = (np.arange(len(order)) + 0.5) / len(order)
    return ranks


def _worth(values: NDArray[np.float64], scores: Scores) -> NDArray[np.float64]:
    """What can be compared between groups: the losses that taylor tells as they are, else shares of a group's worth."""
    return values if scores.criterion == "taylor" else values / (values.sum() or 1.0)


def _kept_channels(group: Group, kept: Kept) -> tuple[int, ...]:
    staying: Sequence[bool] = kept[group.decisions].tolist()
    return tuple(sorted(c for channels, stays in zip(group.channels, staying, strict=True) if stays for c in channels))


def _check_fits(group: Group, values: NDArray[np.float64], name: str) -> None:
    if len(values) != len(group.decisions):
        raise ModelError(
            f"the scores do not fit the model {name}",
            why=f"they hold {len(values)} values for the group {group.name}, which has {len(group.decisions)}",
            fix="score this model",
        )
