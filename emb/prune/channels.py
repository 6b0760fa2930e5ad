"""Whole filters go, with all that is tied to them: the result is a smaller ordinary Keras model. Trains nothing.

Knows no data set, no file and no target; what a model costs is counted by emb.graph or by the caller.
How channels are found to be tied: emb.prune._channel_graph, and docs/explanation/pruning.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import SpecError
from emb.prune._channel_graph import prunable, trace
from emb.prune._channel_plan import ChannelPlan, Row, Scope, Scores, kept_of
from emb.prune._channel_queue import NARROW, Queue
from emb.prune._criteria import Criterion, check_needs, worth_by_taylor, worth_of_dense_layers, worth_of_weights
from emb.prune._search import Found, Search, Try
from emb.prune._surgery import set_masks, with_masks
from emb.prune._surgery import smaller as rebuilt
from emb.spec.contract import Pixels
from emb.spec.dataset import Images

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

__all__ = [
    "ChannelPlan", "Criterion", "Found", "Row", "Scope", "Scores", "Try",
    "macs", "masked", "plan_for_goal", "plan_for_macs", "scores", "sensitivity", "smaller", "untouched",
]  # fmt: skip

_RAW = Pixels()
# Share of all MACs by which a plan in multiples may miss its goal.
_MISS = 0.03
# Share of what a group keeps in blocks of NARROW that it keeps at least in larger ones.
_LEAST_OF_NARROW = 0.6


def scores(
    model: keras.Model,
    *,
    criterion: Criterion,
    images: Images | None = None,
    labels: NDArray[np.integer[Any]] | None = None,
    pixels: Pixels = _RAW,
    rng: np.random.Generator | None = None,
) -> Scores:
    """What every channel of the model is worth, see emb.prune._criteria.

    images: (images, height, width, channels) raw pixels of the train split and labels: (images,) their classes, for
    "taylor" alone, which draws 512 of them with `rng` (the first ones without it).  pixels: what the model takes.
    Raises SpecError if the criterion lacks its images or says nothing of any channel, ModelError if no channel can go.
    """
    check_needs(criterion, images=images, labels=labels)
    graph = prunable(model)
    if criterion == "taylor":
        assert images is not None  # check_needs
        assert labels is not None
        worth = worth_by_taylor(model, graph, images=images, labels=labels, pixels=pixels, rng=rng)
    else:
        worth = worth_of_weights(model, graph, criterion=criterion)
    known = {group.name: worth[group.decisions] for group in graph.groups}
    silent = {name for name, values in known.items() if np.isnan(values).any()}
    if len(silent) == len(known):
        raise SpecError(
            f"the criterion {criterion} says nothing of {model.name}",
            why="no batch normalization with a scale stands behind a layer whose channels can go",
            fix="choose l1, l2 or taylor",
        )
    return Scores(
        criterion=criterion,
        groups={name: tuple(values.tolist()) for name, values in known.items() if name not in silent},
        wholes=worth_of_dense_layers(model, graph, worth, criterion=criterion),
        unscored=dict.fromkeys(sorted(silent), "no batch normalization with a scale stands behind all of its channels"),
    )


def macs(model: keras.Model) -> int:
    """Multiply-accumulate operations of a batch of one, by emb.graph.cost."""
    from emb.graph.cost import macs as count
    from emb.graph.keras import read

    return count(read(model))


def untouched(model: keras.Model) -> dict[str, str]:
    """The layers of which all or some channels cannot go, and why; not the layer whose channels are the classes."""
    return dict(trace(model).untouched)


def plan_for_macs(
    model: keras.Model,
    scores: Scores,
    *,
    removed: float,
    scope: Scope,
    multiple: int = 1,
    macs_before: int | None = None,
) -> ChannelPlan:
    """The plan that comes nearest to removing this fraction of the MACs; removed: above 0, below 1.

    scope: "global" removes what is worth least in the whole model, each group's worth divided by its mean; "uniform"
    the same share of every group, to within one channel. Both leave a tenth of every group, and at least one channel.
    multiple: the number of channels of which every group that loses some keeps a multiple. Kernels compute channels in
    blocks: what is left of a block costs as much as all of it. Of 16 and less, a group with less than twice as many
    keeps a multiple of half of it, or a quarter; of more, it stays whole. Where that misses the fraction by more than
    3 % of the MACs, or takes from some group what others with smaller blocks would lose (less than 0.6 of what it keeps
    in blocks of 16 is left), half of the number is taken.
    Of more than 1, "global" first removes whole layers that the network goes on without, those of a DenseNet (see
    emb.prune._dense_layers), the least worth first; a tenth of these stays.
    macs_before: what the fraction is of, if not of the model itself: for steps, the MACs before the first one.
    Raises SpecError for another fraction, or one that cannot be reached, ModelError if no channel can go.
    """
    if not 0 < removed < 1:
        raise SpecError(
            f"a fraction of {removed:g} of the MACs cannot be removed",
            why="0 would leave the model as it is, 1 would leave nothing of it",
            fix="give a fraction between, e.g. 0.5",
        )
    queue = Queue.of(model, scores, scope=scope, multiple=1)
    whole = queue.macs(0) if macs_before is None else macs_before
    reach = 1 - queue.macs(len(queue)) / whole
    if removed > reach and not math.isclose(removed, reach, rel_tol=1e-9):
        raise SpecError(
            f"{removed:.1%} of the MACs of {model.name} cannot be removed",
            why=f"a tenth of the channels of every group stays, with which {reach:.1%} are removed{queue.whole_ones()}",
            fix=f"give a fraction of at most {math.floor(reach * 1000) / 1000:g}",
        )
    left = (1 - removed) * whole
    while multiple > 1:
        plan = Queue.of(model, scores, scope=scope, multiple=multiple).plan_for(left)
        is_near = abs(plan.macs_after - left) <= _MISS * plan.macs_before
        if is_near and _is_even(plan, model, scores, scope=scope, multiple=multiple):
            return plan
        multiple //= 2
    return queue.plan_for(left)


def plan_for_goal(
    model: keras.Model,
    scores: Scores,
    *,
    scope: Scope,
    cost: Callable[[keras.Model], float],
    goal: float,
    unit: str = "",
    multiple: int = 1,
    per_weight: bool = False,
    tolerance: float = 0.02,
    most_tries: int = 10,
) -> Found[ChannelPlan]:
    """The model that meets `cost(model) <= goal` with the fewest MACs removed, by bisection over that fraction.

    cost: of a model in any unit, e.g. bytes or microseconds; taken to fall with the MACs. unit: for messages.
    multiple: see `plan_for_macs`; of more than 16, half is also taken where no model meets the goal.
    per_weight: let the scope "global" remove what is worth least for the weights that go with it, which is what a goal
    in bytes asks for.
    tolerance: a cost between (1 - tolerance) * goal and goal ends the search, as do `most_tries` models.
    Raises SpecError for a goal that is not above 0 or that the smallest model does not meet, telling what it costs.
    """
    while True:
        queue = Queue.of(model, scores, scope=scope, multiple=multiple, per_weight=per_weight)
        search = Search(build=partial(_behind, model, queue), macs=queue.macs, most=len(queue), cost=cost, goal=goal)
        try:
            gone, best = search.run(
                name=model.name,
                unit=unit,
                least=f"a tenth of the channels of every group left{queue.whole_ones()}",
                tolerance=tolerance,
                most_tries=most_tries,
            )
        except SpecError:
            if multiple <= NARROW:
                raise
        else:
            plan = queue.plan(queue.kept(gone))
            if _is_even(plan, model, scores, scope=scope, multiple=multiple, per_weight=per_weight):
                return Found(plan=plan, model=best, cost=search.cost_of(gone), tries=tuple(search.tries))
        multiple //= 2


def _behind(model: keras.Model, queue: Queue, gone: int) -> keras.Model:
    """The model without the first `gone` steps of the queue."""
    return rebuilt(model, queue.graph, queue.kept(gone))


def _is_even(
    plan: ChannelPlan, model: keras.Model, scores: Scores, *, scope: Scope, multiple: int, per_weight: bool = False
) -> bool:
    """Whether no group of a plan in multiples above NARROW loses what groups too narrow for them would have lost.

    Layers that are gone do not count: blocks of every size take those first.
    """
    if multiple <= NARROW:
        return True
    finer = Queue.of(model, scores, scope=scope, multiple=NARROW, per_weight=per_weight).plan_for(plan.macs_after)
    return all(len(kept) >= _LEAST_OF_NARROW * len(finer.kept[name]) for name, kept in plan.kept.items() if kept)


def smaller(model: keras.Model, plan: ChannelPlan) -> keras.Model:
    """An ordinary model without the channels that the plan removes; `model` stays what it is.

    Layers keep their names and what is left of their weights. Its outputs are those of `masked(model, plan)`.
    Raises ModelError if the plan is for another model.
    """
    graph = trace(model)
    return rebuilt(model, graph, kept_of(graph, plan.kept, name=model.name))


def masked(model: keras.Model, plan: ChannelPlan) -> keras.Model:
    """The model in its own shape, in which what the plan removes is exactly 0 behind every layer.

    Behind a normalization and an activation as well, whatever they make of a 0. Raises ModelError as `smaller` does.
    """
    graph = trace(model)
    kept = kept_of(graph, plan.kept, name=model.name)
    places = {
        key: tuple(None if kept[channels].all() else channels for channels in results)
        for key, results in graph.calls.items()
    }
    result, masks = with_masks(model, places)
    set_masks(masks, kept)
    return result


def sensitivity(
    model: keras.Model,
    *,
    scores: Scores,
    rates: Sequence[float],
    accuracy: Callable[[keras.Model], float],
) -> tuple[Row, ...]:
    """For every group and rate the accuracy with that share of the group alone masked, the least worth first.

    accuracy: of a model, on validation images. It is handed one and the same model, whose masks change between calls.
    Raises SpecError for a rate that is not between 0 and 1, ModelError if no channel can go.
    """
    for rate in rates:
        if not 0 < rate < 1:
            raise SpecError(f"a rate of {rate:g} says nothing", fix="give rates between 0 and 1, e.g. 0.25,0.5,0.75")
    graph = prunable(model)
    decided = np.zeros(graph.count, dtype=np.bool_)
    decided[np.concatenate([group.decisions for group in graph.groups])] = True
    result, masks = with_masks(
        model,
        {
            key: tuple(channels if decided[channels].any() else None for channels in results)
            for key, results in graph.calls.items()
        },
    )
    rows = []
    for group in (group for group in graph.groups if group.name in scores.groups):
        order = np.argsort(scores.groups[group.name], kind="stable")
        for rate in rates:
            gone = order[: min(len(order) - 1, round(rate * len(order)))]
            kept = graph.everything()
            kept[group.decisions[gone]] = False
            set_masks(masks, kept)
            rows.append(
                Row(
                    group=group.name,
                    layers=group.layers,
                    rate=rate,
                    channels=sum(map(len, group.channels)),
                    removed=sum(len(group.channels[place]) for place in gone),
                    accuracy=accuracy(result),
                )
            )
    return tuple(rows)
