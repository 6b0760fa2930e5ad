"""Layers that a network can do without altogether: which, what goes with them, and what is left."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from emb.errors import ModelError
from emb.prune import channels
from emb.prune._channel_graph import trace
from emb.prune._channel_queue import Queue
from emb.prune._dense_layers import dense_layers


def _dense(layers: Any, x: Any, name: str, *, growth: int = 6, bottleneck: int = 24) -> Any:
    new = layers.ReLU()(layers.BatchNormalization()(x))
    new = layers.Conv2D(bottleneck, 1, name=f"{name}_1")(new)
    new = layers.ReLU()(layers.BatchNormalization()(new))
    new = layers.Conv2D(growth, 3, padding="same", name=f"{name}_2")(new)
    return layers.Concatenate(name=f"{name}_concat")([x, new])


def _stem(layers: Any, x: Any, filters: int = 64) -> Any:
    return layers.Conv2D(filters, 3, padding="same", name="stem")(x)


@pytest.fixture(scope="module")
def dense(made):
    """A stem of 64 channels and sixteen layers that add six each."""

    def body(layers, x):
        x = _stem(layers, x)
        for number in range(16):
            x = _dense(layers, x, f"d{number}")
        return layers.ReLU()(layers.BatchNormalization()(x))

    return made(body)


def _without(model: Any, *names: str) -> channels.ChannelPlan:
    """Without these groups and what is made for them alone."""
    graph = trace(model)
    gone = {one for name in names for one in dense_layers(graph)[name]}
    kept = {
        group.name: tuple(
            sorted(
                channel
                for decision, of_it in zip(group.decisions.tolist(), group.channels, strict=True)
                if decision not in gone
                for channel in of_it
            )
        )
        for group in graph.groups
    }
    return channels.ChannelPlan(kept=kept, channels={}, tied={}, untouched={}, macs_before=0, macs_after=0)


def _found(made: Any, body: Any) -> dict[str, list[str]]:
    """The groups that can go as a whole, and the groups that go with each."""
    graph = trace(made(body))
    return {
        name: [group.name for group in graph.groups if set(group.decisions.tolist()) <= set(whole)]
        for name, whole in dense_layers(graph).items()
    }


def test_a_layer_of_a_densenet_and_what_is_made_for_it_alone(dense):
    graph = trace(dense)
    whole = dense_layers(graph)
    assert list(whole) == [f"d{number}_2" for number in range(16)]
    groups = {group.name: set(group.decisions.tolist()) for group in graph.groups}
    assert all(set(whole[f"d{number}_2"]) == groups[f"d{number}_1"] | groups[f"d{number}_2"] for number in range(16))


@pytest.mark.parametrize(
    ("body", "found"),
    [
        pytest.param(
            lambda layers, x: layers.Conv2D(4, 3, name="b")(layers.Conv2D(8, 3, name="a")(x)), {}, id="one way alone"
        ),
        pytest.param(
            lambda layers, x: layers.Concatenate()(
                [layers.Conv2D(8, 1, name="a")(x), layers.Conv2D(8, 3, padding="same", name="b")(x)]
            ),
            {},
            id="inception: who reads a branch does not read what it is made of",
        ),
        pytest.param(
            lambda layers, x: layers.Concatenate()([x, layers.Conv2D(1, 3, padding="same", name="a")(x)]),
            {"a": ["a"]},
            id="beside the image",
        ),
        pytest.param(
            lambda layers, x: layers.Concatenate()([x, layers.Conv2D(2, 3, padding="same", name="a")(x)]),
            {},
            id="more than half as many as there are",
        ),
        pytest.param(
            lambda layers, x: (
                lambda y: layers.Add()([y, layers.Conv2D(8, 3, padding="same", name="b")(layers.ReLU()(y))])
            )(layers.Conv2D(8, 3, name="a")(x)),
            {},
            id="a residual branch is tied to the rest",
        ),
        pytest.param(
            lambda layers, x: (
                lambda y, z: layers.Concatenate()([y, layers.Conv2D(3, 3, padding="same", name="c")(z), z])
            )(*(lambda y: (y, layers.Conv2D(6, 1, name="b")(y)))(layers.Conv2D(8, 3, name="a")(x))),
            {"c": ["c"]},
            id="a bottleneck that is read elsewhere, too",
        ),
        pytest.param(
            lambda layers, x: (
                lambda y: layers.Concatenate()(
                    [y, layers.Conv2D(4, 1, name="c")(layers.Softmax()(layers.Conv2D(6, 1, name="b")(y)))]
                )
            )(layers.Conv2D(8, 3, name="a")(x)),
            {},
            id="made of channels that stay whole",
        ),
        pytest.param(
            lambda layers, x: (
                lambda y: layers.Concatenate()(
                    [y, layers.DepthwiseConv2D(3, padding="same")(layers.Conv2D(4, 1, name="b")(y))]
                )
            )(layers.Conv2D(8, 3, name="a")(x)),
            {"b": ["b"]},
            id="with a depthwise convolution behind it",
        ),
        pytest.param(
            lambda layers, x: (
                lambda y: layers.Concatenate()(
                    [
                        y,
                        layers.Conv2D(4, 3, padding="same", name="c")(
                            (
                                lambda z: layers.Concatenate()(
                                    [z, layers.Conv2D(3, 3, padding="same", name="d")(layers.ReLU()(z))]
                                )
                            )(layers.Conv2D(6, 1, name="b")(y))
                        ),
                    ]
                )
            )(layers.Conv2D(8, 3, name="a")(x)),
            {"d": ["d"]},
            id="more than a layer: one with such a layer inside",
        ),
    ],
)
def test_which_can_go(made, body, found):
    assert _found(made, body) == found


@pytest.mark.parametrize("gone", [("d0_2",), ("d15_2",), ("d1_2", "d4_2", "d5_2"), tuple(f"d{n}_2" for n in range(16))])
def test_the_smaller_model_computes_what_the_masked_one_does_and_has_no_such_layers(dense, difference, gone):
    plan = _without(dense, *gone)
    pruned = channels.smaller(dense, plan)
    assert difference(channels.masked(dense, plan), pruned) < 1e-5
    left = {layer.name for layer in pruned.layers}
    stems = {name.removesuffix("_2") for name in gone}
    for layer in dense.layers:
        if layer.name.split("_")[0] in stems:
            assert layer.name not in left
    assert {f"d{n}_concat" for n in range(16)} & left == {f"d{n}_concat" for n in range(16) if f"d{n}" not in stems}


def test_beside_a_depthwise_convolution_and_channels_that_are_gone_elsewhere(made, difference):
    def body(layers, x):
        x = _stem(layers, x, 12)
        y = layers.DepthwiseConv2D(3, padding="same", name="d")(layers.Conv2D(6, 1, name="b")(x))
        return _dense(layers, layers.Concatenate(name="both")([y, x, y]), "e")

    model = made(body)
    plan = _without(model, "b")
    plan = replace(plan, kept={**plan.kept, "stem": plan.kept["stem"][::2], "e_1": plan.kept["e_1"][1:]})
    pruned = channels.smaller(model, plan)
    assert difference(channels.masked(model, plan), pruned) < 1e-5
    assert {"b", "d", "both"}.isdisjoint(layer.name for layer in pruned.layers)


@pytest.mark.parametrize("multiple", [8, 16, 64])
def test_where_time_counts_whole_layers_go_and_the_least_worth_first(dense, multiple):
    scores = channels.scores(dense, criterion="l1")
    plan = channels.plan_for_macs(dense, scores, removed=0.5, scope="global", multiple=multiple)
    assert channels.macs(channels.smaller(dense, plan)) == plan.macs_after
    assert plan.macs_after / plan.macs_before == pytest.approx(0.5, abs=0.03)
    # With each such layer its bottleneck.
    gone = [name for name, kept in plan.kept.items() if not kept]
    first = sorted(scores.wholes, key=scores.wholes.get)[: len(gone) // 2]
    assert set(gone) == {f"{name.removesuffix('_2')}_{part}" for name in first for part in (1, 2)}
    assert {"name": gone[0], "layers": [gone[0]], "channels_before": 24, "channels_kept": []} in plan.to_json()[
        "groups"
    ]


@pytest.mark.parametrize(
    ("scope", "multiple", "per_weight"), [("global", 1, False), ("uniform", 16, False), ("global", 8, True)]
)
def test_elsewhere_every_layer_keeps_channels(dense, scope, multiple, per_weight):
    scores = channels.scores(dense, criterion="l1")
    queue = Queue.of(dense, scores, scope=scope, multiple=multiple, per_weight=per_weight)
    assert all(queue.plan(queue.kept(len(queue))).kept.values())


def test_a_tenth_of_them_stays_and_then_channels_go(dense):
    queue = Queue.of(dense, channels.scores(dense, criterion="l1"), scope="global", multiple=16)
    layers = 16 - 2
    plans = [queue.plan(queue.kept(gone)) for gone in range(len(queue) + 1)]
    assert [sum(not plan.kept[f"d{number}_2"] for number in range(16)) for plan in plans] == [
        min(gone, layers) for gone in range(len(queue) + 1)
    ]
    assert len(plans[layers].kept["stem"]) == 64
    assert len(plans[-1].kept["stem"]) == 16
    for plan, later in pairwise(plans):
        assert later.macs_after < plan.macs_after
    assert queue.macs(len(queue)) == channels.macs(channels.smaller(dense, plans[-1]))


def test_a_goal_is_met_without_whole_layers(dense):
    """The goal is in MACs here: what a model costs is the caller's."""
    scores = channels.scores(dense, criterion="l1")
    goal = 0.6 * channels.macs(dense)
    found = channels.plan_for_goal(dense, scores, scope="global", cost=channels.macs, goal=goal, multiple=16)
    assert 0.5 * channels.macs(dense) < found.cost == channels.macs(found.model) <= goal
    assert not all(found.plan.kept.values())


def test_what_a_layer_is_worth_is_how_others_read_it(made):
    def body(layers, x):
        x = _stem(layers, x)
        for number in range(3):
            x = _dense(layers, x, f"d{number}")
        return x

    model = made(body)
    reader = model.get_layer("d2_1")
    kernel, bias = reader.get_weights()
    kernel[..., 64:70, :] *= 0.1  # what d0 makes
    reader.set_weights([kernel, bias])
    for criterion in ("l1", "l2"):
        worth = channels.scores(model, criterion=criterion).wholes
        assert list(worth) == ["d0_2", "d1_2", "d2_2"]
        assert min(worth, key=worth.get) == "d0_2"
        assert 0.4 < worth["d0_2"] < 0.9 < worth["d1_2"] < 1.3
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 6, 6, 3), dtype=np.uint8), rng.integers(0, 4, 40)
    taylor = channels.scores(model, criterion="taylor", images=images, labels=labels)
    assert taylor.wholes == {name: pytest.approx(sum(taylor.groups[name])) for name in ("d0_2", "d1_2", "d2_2")}


def test_where_the_criterion_is_silent_about_a_part_the_layer_stays(made):
    """No normalization stands behind the bottleneck."""

    def body(layers, x):
        x = _stem(layers, x)
        for number in range(4):
            new = layers.Conv2D(24, 1, name=f"d{number}_1")(layers.BatchNormalization()(x))
            new = layers.Conv2D(6, 3, padding="same", name=f"d{number}_2")(new)
            x = layers.Concatenate()([x, new])
        return layers.BatchNormalization()(x)

    model = made(body)
    scores = channels.scores(model, criterion="bn-scale")
    assert set(scores.unscored) == {f"d{number}_1" for number in range(4)}
    queue = Queue.of(model, scores, scope="global", multiple=16)
    assert all(queue.plan(queue.kept(len(queue))).kept.values())


def test_a_plan_that_empties_what_the_network_needs(dense):
    plan = _without(dense, "d3_2")
    for name in ("stem", "d4_1"):
        broken = replace(plan, kept={**plan.kept, name: ()})
        with pytest.raises(ModelError) as caught:
            channels.smaller(dense, broken)
        assert str(caught.value).splitlines()[1].startswith(f"  why: it keeps channels none of the group {name}, which")
