"""Plans and searches: how near they come, what they leave, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from emb.errors import ModelError, SpecError
from emb.prune import PRUNERS, channels
from emb.prune._channel_graph import trace
from emb.prune._channel_macs import MacCounter
from emb.prune._channel_queue import Queue


def _body(layers, x):
    x = layers.Conv2D(10, 3, padding="same", activation="relu", name="a")(x)
    y = layers.Conv2D(20, 3, padding="same", activation="relu", name="b")(x)
    y = layers.Conv2D(10, 3, padding="same", name="c")(y)
    return layers.Dense(30, activation="relu", name="d")(layers.Flatten()(layers.Add()([x, y])))


@pytest.fixture(scope="module")
def model(made):
    return made(_body)


@pytest.fixture(scope="module")
def scores(model):
    return channels.scores(model, criterion="l1")


def _counts(plan):
    return {name: (len(kept), plan.channels[name]) for name, kept in plan.kept.items()}


def test_it_is_a_registered_method():
    assert PRUNERS.get("channels") is channels
    assert PRUNERS.help("channels").startswith("Whole filters go")


@pytest.mark.parametrize("scope", ["global", "uniform"])
@pytest.mark.parametrize("removed", [0.1, 0.35, 0.5, 0.8])
def test_the_fraction_is_that_of_the_measured_macs(model, scores, scope, removed):
    plan = channels.plan_for_macs(model, scores, removed=removed, scope=scope)
    after = channels.macs(channels.smaller(model, plan))
    assert (channels.macs(model), after) == (plan.macs_before, plan.macs_after)
    assert 1 - after / plan.macs_before == pytest.approx(removed, abs=0.01)


def test_uniform_takes_the_same_share_of_every_group(model, scores):
    plan = channels.plan_for_macs(model, scores, removed=0.5, scope="uniform")
    # Two channels more or less: where one filter is 5 % of the MACs, some groups wait.
    shares = [kept / before for kept, before in _counts(plan).values()]
    assert max(shares) - min(shares) <= 0.2


def test_global_takes_what_is_worth_least(model, scores):
    worthless = replace(scores, groups={**scores.groups, "b": tuple(1e-3 if i < 15 else 9.0 for i in range(20))})
    # A filter of b: at 6x6 positions it reads 3x3x10, and is read by 10 filters of 3x3.
    removed = 10 * 36 * (90 + 90) / channels.macs(model)
    plan = channels.plan_for_macs(model, worthless, removed=removed, scope="global")
    assert plan.kept["b"] == tuple(range(10, 20))
    assert _counts(plan) == {"a": (10, 10), "b": (10, 20), "d": (30, 30)}


def _weights(model):
    """Elements of all kernels."""
    return sum(int(np.prod(variable.shape)) for variable in model.weights if variable.name == "kernel")


def test_the_weights_that_go_with_a_channel(model, scores):
    plan = channels.plan_for_macs(model, scores, removed=0.5, scope="global")
    whole = {name: tuple(range(count)) for name, count in plan.channels.items()}
    graph = trace(model)
    weights = MacCounter.of(model, graph).weights_of_each(graph)
    for group in graph.groups:
        for number, decision in enumerate(group.decisions):
            kept = {**whole, group.name: tuple(one for one in whole[group.name] if one != number)}
            without = channels.smaller(model, replace(plan, kept=kept))
            assert weights[decision] == pytest.approx(_weights(model) - _weights(without))


def _gone(model, scores, **how):
    """How many channels each group loses in the first three steps."""
    queue = Queue.of(model, scores, scope="global", multiple=1, **how)
    counts = _counts(queue.plan(queue.kept(3)))
    return {name: before - left for name, (left, before) in counts.items() if left < before}


def test_per_weight_takes_what_is_worth_least_for_its_weights(model, scores):
    """A unit of d has 360 + 10 weights, a filter of b 90 + 90."""
    told = replace(scores, criterion="taylor", groups={"a": (9.0,) * 10, "b": (0.10,) * 20, "d": (0.15,) * 30})
    assert _gone(model, told, per_weight=True) == {"d": 3}
    dearer = replace(told, groups={**told.groups, "d": (0.25,) * 30})
    assert _gone(model, dearer, per_weight=True) == {"b": 3}


def test_per_weight_compares_shares_where_the_criterion_has_no_unit(model, scores):
    """Ten times as large weights behind a normalization compute the same; ten times the loss is ten times the loss."""
    told = replace(scores, groups={"a": (9.0,) * 10, "b": (1.0,) * 20, "d": (0.5,) * 30})
    larger = replace(told, groups={**told.groups, "d": (5.0,) * 30})
    assert _gone(model, told, per_weight=True) == _gone(model, larger, per_weight=True) == {"a": 3}
    assert _gone(model, replace(told, criterion="taylor"), per_weight=True) == {"d": 3}
    assert _gone(model, replace(larger, criterion="taylor"), per_weight=True) == {"b": 3}


def test_where_one_filter_goes_too_far_its_group_waits(model, scores):
    worthless = replace(scores, groups={**scores.groups, "b": tuple(1e-3 if i < 15 else 9.0 for i in range(20))})
    removed = 10.5 * 36 * (90 + 90) / channels.macs(model)
    plan = channels.plan_for_macs(model, worthless, removed=removed, scope="global")
    assert plan.kept["b"] == tuple(range(10, 20))
    assert 1 - plan.macs_after / plan.macs_before == pytest.approx(removed, abs=0.01)
    least = np.argsort(scores.groups["d"])[: 30 - len(plan.kept["d"])]
    assert not set(least.tolist()) & set(plan.kept["d"])


def test_each_group_loses_its_least_first(model, scores):
    plan = channels.plan_for_macs(model, scores, removed=0.4, scope="global")
    for name, kept in plan.kept.items():
        values = np.array(scores.groups[name])
        gone = [place for place in range(len(values)) if place not in kept]
        assert not gone or values[gone].max() <= values[list(kept)].min()


def test_a_tenth_of_every_group_stays(model, scores):
    uneven = replace(scores, groups={**scores.groups, "b": (0.0,) * 20})
    plan = channels.plan_for_macs(model, uneven, removed=0.9, scope="global")
    assert _counts(plan)["b"] == (2, 20)


@pytest.mark.parametrize("scope", ["global", "uniform"])
@pytest.mark.parametrize(
    ("multiple", "counts"), [(16, (16, 16, 4, 4)), (8, (8, 8, 4, 4)), (3, (3,) * 4), (1, (1,) * 4)]
)
def test_what_is_left_of_a_group_is_a_multiple(made, scope, multiple, counts):
    """Of half or a quarter of it where a group has less than twice as many: c and d have 10 channels."""

    def body(layers, x):
        x = layers.Conv2D(90, 3, padding="same", name="a")(x)
        x = layers.Conv2D(64, 3, padding="same", name="b")(x)
        x = layers.Conv2D(10, 3, padding="same", name="c")(x)
        return layers.Dense(10, name="d")(layers.Flatten()(x))

    model = made(body)
    scores = channels.scores(model, criterion="l1")
    queue = Queue.of(model, scores, scope=scope, multiple=multiple)
    counts = dict(zip("abcd", counts, strict=True))
    plans = [queue.plan(queue.kept(gone)) for gone in range(len(queue) + 1)]
    for plan, later in pairwise(plans):
        assert later.macs_after < plan.macs_after
        (name,) = [name for name in plan.kept if plan.kept[name] != later.kept[name]]
        assert len(later.kept[name]) % counts[name] == 0
        assert len(plan.kept[name]) - len(later.kept[name]) <= counts[name]
        gone = [scores.groups[name][place] for place in set(plan.kept[name]) - set(later.kept[name])]
        assert max(gone) <= min(scores.groups[name][place] for place in later.kept[name])
    assert all(len(kept) < 0.1 * plans[-1].channels[name] + counts[name] for name, kept in plans[-1].kept.items())


def test_channels_of_a_grouped_convolution_are_counted_together(made):
    def body(layers, x):
        x = layers.Conv2D(32, 3, name="a")(x)
        x = layers.Conv2D(32, 3, groups=2, name="b")(x)
        return layers.Conv2D(32, 1, name="c")(x)

    model = made(body)
    scores = channels.scores(model, criterion="l1")
    for removed in (0.2, 0.5, 0.8):
        plan = channels.plan_for_macs(model, scores, removed=removed, scope="global", multiple=8)
        assert all(len(kept) % 8 == 0 for kept in plan.kept.values())


@pytest.mark.parametrize("removed", [0.1, 0.35, 0.5, 0.8, 0.97])
def test_a_multiple_too_coarse_for_the_fraction_gives_way(model, scores, removed):
    plan = channels.plan_for_macs(model, scores, removed=removed, scope="global", multiple=64)
    assert 1 - plan.macs_after / plan.macs_before == pytest.approx(removed, abs=0.03)


@pytest.fixture(scope="module")
def wide(made):
    """wide(a, b, c): three convolutions of 3x3 with so many channels."""

    def make(*channels):
        def body(layers, x):
            for name, count in zip("abc", channels, strict=True):
                x = layers.Conv2D(count, 3, padding="same", name=name)(x)
            return x

        return made(body)

    return make


def test_of_large_blocks_what_is_too_narrow_stays_whole(wide):
    model = wide(192, 320, 48)
    plan = channels.plan_for_macs(
        model, channels.scores(model, criterion="l1"), removed=0.4, scope="global", multiple=64
    )
    assert {name: len(kept) for name, kept in plan.kept.items()} == {"a": 128, "b": 256, "c": 48}


def test_large_blocks_give_way_where_wide_layers_would_lose_what_narrow_ones_keep(wide):
    model = wide(60, 320, 60)
    scores = channels.scores(model, criterion="l1")
    queue = Queue.of(model, scores, scope="global", multiple=64)
    alone = queue.plan_for(0.2 * queue.macs(0))
    assert {name: len(kept) for name, kept in alone.kept.items()} == {"a": 60, "b": 64, "c": 60}
    plan, finer = (
        channels.plan_for_macs(model, scores, removed=0.8, scope="global", multiple=multiple) for multiple in (64, 32)
    )
    assert plan == finer
    assert {name: len(kept) for name, kept in plan.kept.items()} == {"a": 32, "b": 128, "c": 32}


def test_steps_count_from_the_macs_before_the_first(model, scores):
    before = channels.macs(model)
    half = channels.smaller(model, channels.plan_for_macs(model, scores, removed=0.3, scope="global"))
    again = channels.scores(half, criterion="l1")
    plan = channels.plan_for_macs(half, again, removed=0.6, scope="global", macs_before=before)
    assert channels.macs(channels.smaller(half, plan)) / before == pytest.approx(0.4, abs=0.01)
    # Nothing is left to do where a model has fewer MACs already.
    nothing = channels.plan_for_macs(half, again, removed=0.1, scope="global", macs_before=before)
    assert nothing.macs_after == nothing.macs_before


def test_as_json(model, scores):
    plan = channels.plan_for_macs(model, scores, removed=0.5, scope="global")
    document = json.loads(json.dumps(plan.to_json()))
    assert list(document) == ["macs_before", "macs_after", "groups", "untouched"]
    assert document["groups"][0] == {
        "name": "a",
        "layers": ["a", "c"],
        "channels_before": 10,
        "channels_kept": list(plan.kept["a"]),
    }


@pytest.mark.parametrize("removed", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_fraction_of_nothing_or_all(model, scores, removed):
    with pytest.raises(SpecError) as caught:
        channels.plan_for_macs(model, scores, removed=removed, scope="global")
    assert str(caught.value) == (
        f"a fraction of {removed:g} of the MACs cannot be removed\n"
        "  why: 0 would leave the model as it is, 1 would leave nothing of it\n"
        "  fix: give a fraction between, e.g. 0.5"
    )


def test_a_fraction_out_of_reach(made):
    def body(layers, x):
        x = layers.Conv2D(10, 3, name="a")(x)
        x = layers.LayerNormalization(name="norm")(x)
        return layers.Conv2D(10, 3, name="b")(x)

    model = made(body)
    scores = channels.scores(model, criterion="l1")
    with pytest.raises(SpecError) as caught:
        channels.plan_for_macs(model, scores, removed=0.9, scope="global")
    # a: 4 * 4 * 27 * 10, b: 2 * 2 * 90 * 10, of which 9 in 10 go, scores: 10 * 4, likewise.
    reach = 0.9 * (3600 + 40) / (4320 + 3600 + 40)
    assert str(caught.value).splitlines() == [
        f"90.0% of the MACs of {model.name} cannot be removed",
        f"  why: a tenth of the channels of every group stays, with which {reach:.1%} are removed; norm, a cannot be "
        "pruned at all",
        "  fix: give a fraction of at most 0.411",
    ]
    assert channels.plan_for_macs(model, scores, removed=0.411, scope="global").macs_after < 0.6 * 7960


def test_scores_and_plans_of_another_model(model, scores, made):
    other = made(lambda layers, x: layers.Conv2D(7, 3, name="a")(x))
    with pytest.raises(ModelError) as caught:
        channels.plan_for_macs(other, scores, removed=0.5, scope="global")
    assert str(caught.value) == (
        f"the scores do not fit the model {other.name}\n"
        "  why: they hold 10 values for the group a, which has 7\n"
        "  fix: score this model"
    )
    plan = channels.plan_for_macs(model, scores, removed=0.5, scope="global")
    for make in (channels.smaller, channels.masked):
        with pytest.raises(ModelError) as wrong:
            make(other, replace(plan, kept={"b": (0, 1, 2, 3, 4, 5)}))
        assert str(wrong.value) == (
            f"the plan does not fit the model {other.name}\n"
            "  why: it keeps channels 0, 1, 2, 3, ... of the group b, which has none\n"
            "  fix: make a plan for this model, with the scores of this model"
        )


class TestGoals:
    def test_the_fewest_macs_go(self, model, scores):
        found = channels.plan_for_goal(model, scores, scope="global", cost=lambda one: one.count_params(), goal=5000)
        # One filter of b or c is up to 190 parameters.
        assert 4800 <= found.cost == found.model.count_params() <= 5000
        assert channels.macs(found.model) == found.plan.macs_after
        assert found.tries[0].removed == 0
        removed = 1 - found.plan.macs_after / found.plan.macs_before
        assert all(one.removed >= removed for one in found.tries if one.cost <= 5000)

    def test_what_meets_it_already_stays_whole(self, model, scores):
        found = channels.plan_for_goal(model, scores, scope="global", cost=channels.macs, goal=1e9)
        assert len(found.tries) == 1
        assert found.plan.macs_after == found.plan.macs_before

    def test_no_more_models_than_allowed(self, model, scores):
        found = channels.plan_for_goal(
            model, scores, scope="uniform", cost=channels.macs, goal=40_000, tolerance=0, most_tries=5
        )
        assert len(found.tries) == 5
        assert found.cost <= 40_000

    def test_a_cost_that_does_not_fall_with_the_macs(self, model, scores):
        """As measured times may: the model that is found meets the goal all the same."""
        noise = np.random.default_rng(0)
        found = channels.plan_for_goal(
            model, scores, scope="global", cost=lambda one: channels.macs(one) * noise.uniform(0.7, 1.3), goal=40_000
        )
        assert found.cost <= 40_000
        assert found.cost in [one.cost for one in found.tries]

    @pytest.mark.parametrize(
        ("left", "counts"),
        [
            pytest.param(0.62, {"a": 60, "b": 192, "c": 60}, id="in large blocks"),
            pytest.param(0.2, {"a": 32, "b": 96, "c": 32}, id="which would take all from b"),
            pytest.param(0.05, {"a": 16, "b": 48, "c": 16}, id="whose smallest model misses the goal"),
        ],
    )
    def test_blocks_as_large_as_the_goal_allows(self, wide, left, counts):
        model = wide(60, 320, 60)
        scores = channels.scores(model, criterion="l1")
        goal = left * channels.macs(model)
        found = channels.plan_for_goal(model, scores, scope="global", cost=channels.macs, goal=goal, multiple=64)
        assert found.cost == channels.macs(found.model) <= goal
        assert {name: len(kept) for name, kept in found.plan.kept.items()} == counts

    def test_a_goal_out_of_reach(self, model, scores):
        with pytest.raises(SpecError) as caught:
            channels.plan_for_goal(
                model, scores, scope="global", cost=lambda one: one.count_params(), goal=100, unit="parameters"
            )
        what, why, fix = str(caught.value).splitlines()
        assert what == f"{model.name} cannot be pruned to 100 parameters"
        assert why.startswith("  why: the nearest that was reached is 194 parameters, with 98.")
        assert why.endswith("% of the MACs removed and a tenth of the channels of every group left")
        assert fix == "  fix: choose a larger goal, or a smaller architecture"

    @pytest.mark.parametrize("goal", [0.0, -1.0, float("inf"), float("nan")])
    def test_no_goal(self, model, scores, goal):
        with pytest.raises(SpecError) as caught:
            channels.plan_for_goal(model, scores, scope="global", cost=channels.macs, goal=goal, unit="bytes")
        assert str(caught.value) == f"{goal:g} bytes is no goal\n  fix: give a number above 0"


class TestSensitivity:
    def test_each_group_and_rate_alone(self, model, scores):
        x = np.random.default_rng(0).uniform(0, 1, (8, 6, 6, 3)).astype(np.float32)
        seen = []

        def accuracy(one):
            seen.append(np.asarray(one(x, training=False)))
            return len(seen) / 100

        rows = channels.sensitivity(model, scores=scores, rates=(0.25, 0.5, 1 - 1e-9), accuracy=accuracy)
        assert [(row.group, row.removed, row.channels) for row in rows] == [
            ("a", 2, 10), ("a", 5, 10), ("a", 9, 10),
            ("b", 5, 20), ("b", 10, 20), ("b", 19, 20),
            ("d", 8, 30), ("d", 15, 30), ("d", 29, 30),
        ]  # fmt: skip
        assert [row.accuracy for row in rows] == [number / 100 for number in range(1, 10)]
        assert rows[0].layers == ("a", "c")
        whole = channels.plan_for_macs(model, scores, removed=0.5, scope="global")
        order = np.argsort(scores.groups["b"], kind="stable")
        alone = {name: tuple(range(count)) for name, count in whole.channels.items()}
        alone["b"] = tuple(sorted(order[10:].tolist()))
        expected = channels.smaller(model, replace(whole, kept=alone))
        np.testing.assert_allclose(seen[4], np.asarray(expected(x, training=False)), atol=1e-5)

    @pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
    def test_a_rate_of_nothing_or_all(self, model, scores, rate):
        with pytest.raises(SpecError) as caught:
            channels.sensitivity(model, scores=scores, rates=(rate,), accuracy=lambda _: 0.0)
        assert (
            str(caught.value)
            == f"a rate of {rate:g} says nothing\n  fix: give rates between 0 and 1, e.g. 0.25,0.5,0.75"
        )
