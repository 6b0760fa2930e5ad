"""Residual branches: which can go, that nothing else changes with them, in which order they go and how far."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from emb.errors import ModelError, SpecError
from emb.graph.cost import macs
from emb.graph.keras import read
from emb.prune import blocks
from emb.prune._block_graph import blocks_of
from emb.zoo import ZOO


def _branch(layers: Any, x: Any, name: str, filters: int = 8) -> Any:
    y = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"{name}_conv1")(x)
    return layers.BatchNormalization(name=f"{name}_bn")(layers.Conv2D(8, 3, padding="same", name=f"{name}_conv2")(y))


def _residual(layers: Any, x: Any, name: str, filters: int = 8) -> Any:
    added = layers.Add(name=f"{name}_add")([x, _branch(layers, x, name, filters)])
    return layers.ReLU(name=f"{name}_relu")(added)


def _three(layers: Any, image: Any) -> Any:
    """Three branches behind each other, the second with the most weights and MACs."""
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(image)
    for name, filters in (("a", 8), ("b", 16), ("c", 8)):
        x = _residual(layers, x, name, filters)
    return x


def _names(model: Any) -> list[str]:
    return [layer.name for layer in model.layers]


def _silenced(model: Any, lasts: tuple[str, ...]) -> Any:
    """A copy in which the last layers of some branches make nothing but 0."""
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for name in lasts:
        for variable in copy.get_layer(name).weights:
            if variable.name in ("gamma", "beta", "kernel", "bias"):
                variable.assign(np.zeros(variable.shape))
    return copy


def test_what_is_left_answers_as_if_the_branches_were_zero(made, difference):
    model = made(_three)
    plan = blocks.plan_for_macs(model, {"a_add": 1.0, "b_add": 3.0, "c_add": -0.5}, removed=0.4)
    assert list(plan.gone) == ["c_add", "a_add"]
    smaller = blocks.smaller(model, plan)
    assert difference(smaller, _silenced(model, ("a_bn", "c_bn"))) < 1e-6
    assert plan.macs_after == macs(read(smaller))
    assert plan.macs_before == macs(read(model))
    # The rectifiers of the sums that are gone had a rectifier before them.
    assert _names(smaller) == ["pixels", "first", "b_conv1", "b_conv2", "b_bn", "b_add", "b_relu", "mean", "scores"]
    assert "a_conv1" in _names(model)


def test_a_rectifier_stays_where_none_is_before_it(made, difference):
    def body(layers: Any, image: Any) -> Any:
        return _residual(layers, layers.Conv2D(8, 3, padding="same", name="first")(image), "a")

    model = made(body)
    smaller = blocks.smaller(model, blocks.plan_for_macs(model, {"a_add": 0.0}, removed=0.1))
    assert _names(smaller) == ["pixels", "first", "a_relu", "mean", "scores"]
    assert difference(smaller, _silenced(model, ("a_bn",))) < 1e-6


def test_an_operator_adds_as_a_layer_does(made, difference):
    def body(layers: Any, image: Any) -> Any:
        x = layers.Conv2D(8, 3, padding="same", name="first")(image)
        return _branch(layers, x, "a") + x

    model = made(body)
    (block,) = blocks_of(model).found
    assert (block.layers, block.stays) == (("a_conv1", "a_conv2", "a_bn"), 1)
    smaller = blocks.smaller(model, blocks.plan_for_macs(model, {block.name: 0.0}, removed=0.1))
    assert difference(smaller, _silenced(model, ("a_bn",))) < 1e-6


def _projection(layers: Any, x: Any) -> Any:
    return layers.Add(name="add")([layers.Conv2D(8, 1, name="shortcut")(x), _branch(layers, x, "a")])


def _used_outside(layers: Any, x: Any) -> Any:
    y = _branch(layers, x, "a")
    return layers.Concatenate()([layers.Add(name="add")([x, y]), y])


def _shared(layers: Any, x: Any) -> Any:
    twice = layers.Conv2D(8, 3, padding="same", name="twice")
    return layers.Add(name="add")([x, twice(twice(x))])


def _inner_model(layers: Any, x: Any) -> Any:
    import keras

    image = keras.Input(x.shape[1:])
    inner = keras.Model(image, layers.Conv2D(8, 3, padding="same")(image), name="inner")
    return layers.Add(name="add")([x, inner(x)])


def _no_weights(layers: Any, x: Any) -> Any:
    return layers.Add(name="add")([x, layers.AveragePooling2D(3, strides=1, padding="same", name="pool")(x)])


def _twice_the_same(layers: Any, x: Any) -> Any:
    return layers.Add(name="add")([x, x])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (_projection, "neither of its inputs is made from the other one: its shortcut has layers of its own"),
        (_used_outside, "what a_bn makes is used outside of its branch, too"),
        (_shared, "twice is called in other places, too"),
        (_inner_model, "inner is a model inside of the model"),
        (_no_weights, "its branch holds no weights"),
        (_twice_the_same, "neither of its inputs is made from the other one: its shortcut has layers of its own"),
    ],
)
def test_what_stays_is_named(made, body, reason):
    def both(layers: Any, image: Any) -> Any:
        x = layers.Conv2D(8, 3, padding="same", name="first")(image)
        return body(layers, _residual(layers, x, "free"))

    found = blocks_of(made(both))
    assert [one.name for one in found.found] == ["free_add"]
    assert found.untouched == {"add": reason}


def test_sums_of_several_or_of_other_shapes_are_none(made):
    def body(layers: Any, image: Any) -> Any:
        x = layers.Conv2D(8, 3, padding="same", name="first")(image)
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = layers.Add(name="broadcast")([x, layers.Conv2D(8, 1)(gate)])
        return layers.Add(name="of_three")([x, _branch(layers, x, "a"), _branch(layers, x, "b")])

    with pytest.raises(ModelError) as caught:
        blocks_of(made(body))
    assert str(caught.value).startswith("functional")
    assert "none of its layers adds up two tensors" in caught.value.why


def test_the_loss_is_asked_for_without_each_branch_alone(made):
    model = made(_three)
    x = np.random.default_rng(0).uniform(0, 2, (3, 6, 6, 3)).astype(np.float32)

    def loss(candidate: Any) -> float:
        return float(-np.log(np.asarray(candidate(x, training=False))[:, 1]).mean())

    told = blocks.rises(model, loss=loss)
    wanted = {f"{name}_add": loss(_silenced(model, (f"{name}_bn",))) - loss(model) for name in "abc"}
    assert list(told) == ["a_add", "b_add", "c_add"]
    assert told == pytest.approx(wanted, abs=1e-5)


def test_what_goes_first_is_worth_least_for_its_macs_or_weights(made):
    def body(layers: Any, image: Any) -> Any:
        x = _residual(layers, layers.Conv2D(8, 3, padding="same", name="first")(image), "large")
        return _residual(layers, layers.MaxPooling2D(3)(x), "small", filters=16)

    model = made(body, (12, 12, 3))
    large, small = blocks_of(model).found
    assert large.macs > 4 * small.macs
    assert large.weights < small.weights
    rises = {"large_add": 2.0, "small_add": 1.0}
    assert list(blocks.plan_for_macs(model, rises, removed=0.1).gone) == ["large_add"]
    for per_weight, first in ((False, "large_add"), (True, "small_add")):
        found = blocks.plan_for_goal(
            model, rises, cost=lambda one: len(one.layers), goal=len(model.layers) - 1, per_weight=per_weight
        )
        assert list(found.plan.gone) == [first]


def test_as_few_as_the_goal_takes(made):
    model = made(_three)
    rises = {"a_add": 1.0, "b_add": 1.0, "c_add": 1.0}
    whole = macs(read(model))
    found = blocks.plan_for_goal(model, rises, cost=lambda one: macs(read(one)), goal=0.6 * whole)
    assert list(found.plan.gone) == ["b_add"]
    assert found.cost == found.plan.macs_after == macs(read(found.model))
    assert blocks.plan_for_goal(model, rises, cost=lambda one: 1.0, goal=1.0).plan.gone == {}


def test_out_of_reach(made):
    model, rises = made(_three), {"a_add": 1.0, "b_add": 1.0, "c_add": 1.0}
    with pytest.raises(SpecError, match=r"99.0% of the MACs of .* cannot be removed with residual branches") as caught:
        blocks.plan_for_macs(model, rises, removed=0.99)
    reach = float(caught.value.fix.split()[6].rstrip(","))
    assert list(blocks.plan_for_macs(model, rises, removed=reach).gone) == ["b_add", "a_add", "c_add"]
    with pytest.raises(SpecError) as caught:
        blocks.plan_for_goal(model, rises, cost=lambda one: len(one.layers), goal=2, unit="layers")
    assert "nearest that was reached is 4 layers" in caught.value.why
    assert "no residual branch left that can go" in caught.value.why
    for fraction in (0, 1):
        with pytest.raises(SpecError, match="cannot be removed"):
            blocks.plan_for_macs(model, rises, removed=fraction)


def test_a_plan_of_another_model(made):
    model = made(_three)
    plan = blocks.plan_for_macs(model, {"a_add": 1.0, "b_add": 1.0, "c_add": 1.0}, removed=0.1)
    with pytest.raises(ModelError, match="do not fit the model"):
        blocks.plan_for_macs(model, {"a_add": 1.0}, removed=0.1)
    other = made(lambda layers, image: _residual(layers, layers.Conv2D(8, 3, padding="same")(image), "z"))
    with pytest.raises(ModelError, match="do not fit the model"):
        blocks.smaller(other, plan)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "arguments", "found", "whole"),
    [
        (20, {}, 7, 2),
        (20, {"shortcut": "identity"}, 7, 2),
        (50, {"width": 0.25}, 12, 4),
    ],
)
def test_residual_networks(scramble, difference, depth, arguments, found, whole):
    """All branches but those with a projection, or none: the first of each stage."""
    import keras

    keras.utils.set_random_seed(0)
    model = scramble(ZOO.get("resnet").build(input_shape=(32, 32, 3), classes=10, depth=depth, **arguments))
    known = blocks_of(model)
    assert (len(known.found), len(known.untouched)) == (found, whole)
    some = known.found[::2]
    plan = blocks.BlockPlan(
        gone={one.name: one.layers for one in some},
        macs={one.name: one.macs for one in known.found},
        rises={},
        untouched={},
        macs_before=0,
        macs_after=0,
    )
    smaller = blocks.smaller(model, plan)
    assert difference(smaller, _silenced(model, tuple(one.last for one in some))) < 1e-5
    assert macs(read(smaller)) == macs(read(model)) - sum(one.macs for one in some)


@pytest.mark.slow
@pytest.mark.long
def test_a_network_of_keras_itself(scramble, difference):
    import keras

    model = scramble(keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=4))
    known = blocks_of(model)
    assert len(known.found) == 10
    assert known.untouched == {}
    told = {one.name: 0.0 for one in known.found}
    plan = blocks.plan_for_goal(model, told, cost=lambda one: macs(read(one)), goal=0.8 * macs(read(model))).plan
    smaller = blocks.smaller(model, plan)
    lasts = tuple(one.last for one in known.found if one.name in plan.gone)
    assert difference(smaller, _silenced(model, lasts)) < 1e-5
