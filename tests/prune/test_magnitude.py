"""Zeros: as many as asked for, the smallest, N of M, and at the time that the schedule says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emb.errors import ModelError
from emb.prune import PRUNERS
from emb.prune._kernels import Kernel
from emb.prune.magnitude import Zeros, pattern_mask, smallest_masks, sparsity_at, zeros
from emb.spec.pruning import METHODS, goal_of


def network(*, channels: int = 4):
    import keras
    from keras import layers

    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(channels, 3, name="first")(inputs)
    x = layers.DepthwiseConv2D(3, name="depth")(x)
    x = layers.Conv2D(8, 1, name="second")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="scores")(layers.Flatten()(x)))


@given(seed=st.integers(0, 99), share=st.floats(0, 1), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_the_smallest_weights_go_and_no_others(seed, share, sizes):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(size, 3)).astype(np.float32) for size in sizes]
    masks = smallest_masks(weights, share=share)
    kept = np.concatenate([np.abs(weight[mask == 1]) for weight, mask in zip(weights, masks, strict=True)])
    gone = np.concatenate([np.abs(weight[mask == 0]) for weight, mask in zip(weights, masks, strict=True)])
    assert len(gone) == round(share * 3 * sum(sizes))
    assert not len(gone) or not len(kept) or gone.max() <= kept.min()


@given(seed=st.integers(0, 99), pattern=st.sampled_from([(1, 2), (2, 4), (1, 4), (4, 8)]))
def test_the_largest_of_each_m_inputs_stay(seed, pattern):
    kept, of = pattern
    weight = np.random.default_rng(seed).normal(size=(3, 2, 2 * of, 5)).astype(np.float32)
    mask = pattern_mask(weight, kept=kept, of=of)
    groups = np.moveaxis(np.abs(weight), -2, -1).reshape(-1, of)
    chosen = np.moveaxis(mask, -2, -1).reshape(-1, of)
    assert (chosen.sum(axis=1) == kept).all()
    least = np.where(chosen == 1, groups, np.inf).min(axis=1)
    most = np.where(chosen == 0, groups, -np.inf).max(axis=1)
    assert (least >= most).all()


def test_of_equal_weights_exactly_n_stay():
    assert pattern_mask(np.zeros((8, 3)), kept=2, of=4).sum() == 12


def test_the_schedule_is_the_papers():
    shares = [sparsity_at(step, end=10, final=0.8) for step in range(14)]
    assert shares[0] == 0
    assert shares[5] == pytest.approx(0.8 - 0.8 * 0.5**3)
    assert shares[10:] == [0.8] * 4
    assert shares == sorted(shares)


@given(steps=st.integers(1, 3000), ramp=st.floats(0, 0.999))
def test_the_last_change_is_the_final_one_and_before_the_end(steps, ramp):
    form = Zeros(
        goal=goal_of("magnitude", "0.7"),
        scope="global",
        ramp_fraction=ramp,
        layers=tuple(Kernel(place=place, layer="", is_depthwise=False, shape=(10,)) for place in (1, 4)),
        left_whole={},
    )
    due = [step for step in range(steps) if form.is_due(step, steps=steps)]
    assert due[0] == 0
    assert len(due) <= 202
    weights = {place: np.arange(1.0, 11.0) for place in form.places}
    masks = form.states(weights, step=due[-1], steps=steps)
    assert sum(mask.sum() for mask in masks.values()) == 20 - 14


def test_uniform_takes_the_same_share_of_every_layer():
    model = network()
    form = zeros(model, goal=goal_of("magnitude", "0.5"), scope="uniform")
    weights = {place: np.array(model.variables[place]) for place in form.places}
    for mask in form.states(weights, step=0, steps=1).values():
        assert (mask == 0).sum() == round(0.5 * mask.size)


def test_layers_that_cannot_have_the_pattern_are_named():
    form = zeros(network(), goal=goal_of("magnitude", "2:4"))
    assert [kernel.layer for kernel in form.layers] == ["second", "scores"]
    assert dict(form.left_whole) == {
        "first": "its 1 input channels are no multiple of 4",
        "depth": "each of its outputs has one input channel",
    }


def test_kernels_of_separable_nested_and_unknown_layers():
    import keras
    from keras import layers

    inner = keras.Sequential([keras.Input((8, 8, 4)), layers.SeparableConv2D(6, 3, name="separable")], name="inner")
    inputs = keras.Input((4, 4, 3))
    x = inner(layers.Conv2DTranspose(4, 2, strides=2, name="up")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="scores")(layers.Flatten()(x)))
    form = zeros(model, goal=goal_of("magnitude", "0.5"))
    assert [(kernel.layer, kernel.is_depthwise, kernel.shape) for kernel in form.layers] == [
        ("separable", True, (3, 3, 4, 1)),
        ("separable", False, (1, 1, 4, 6)),
        ("scores", False, (216, 2)),
    ]
    assert dict(form.left_whole) == {"up": "Conv2DTranspose is neither a plain convolution nor a dense layer"}
    for kernel in form.layers:
        assert tuple(model.variables[kernel.place].shape) == kernel.shape


def test_a_model_without_a_layer_for_the_pattern():
    import keras

    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="scores")(inputs))
    with pytest.raises(ModelError) as caught:
        zeros(model, goal=goal_of("magnitude", "2:4"))
    assert str(caught.value) == (
        "no layer of the model can be pruned to 2:4\n"
        "  why: scores: its 3 input channels are no multiple of 4\n"
        "  fix: choose another goal, e.g. magnitude:0.5"
    )


def test_every_public_file_is_a_method_that_recipes_know():
    assert {*PRUNERS.names(), "none"} == set(METHODS)
