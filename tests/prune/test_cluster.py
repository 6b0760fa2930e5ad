"""Shared weights: few ratios in a layer, near the weights, and few integers after quantization."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.errors import ModelError
from emb.prune._kernels import Kernel
from emb.prune.cluster import assignments, k_means, shared


@given(seed=st.integers(0, 99), count=st.integers(2, 20))
def test_centers_are_a_fixed_point_of_lloyds_iteration(seed, count):
    rng = np.random.default_rng(seed)
    points = np.r_[-1, 1, rng.uniform(-1, 1, 200)]
    masses = rng.uniform(0.1, 1, points.size)
    centers = k_means(points, masses, count=count)
    assert centers[0] == -1
    assert centers[-1] == 1
    assert (np.diff(centers) > 0).all()
    nearest = np.abs(points[:, None] - centers).argmin(axis=1)
    for number in range(1, count - 1):
        held = nearest == number
        if held.any():
            assert np.average(points[held], weights=masses[held]) == pytest.approx(centers[number])


def _projected(weight, *, count):
    kernel = Kernel(place=0, layer="layer", is_depthwise=False, shape=weight.shape)
    form = shared_of(kernel, count=count)
    state = assignments(weight, kernel=kernel, count=count)
    return np.array(form.projected(weight, state, place=0)), state, form


def shared_of(kernel, *, count):
    from emb.prune.cluster import Shared

    return Shared(count=count, layers=(kernel,), left_whole={})


@settings(max_examples=30)
@given(seed=st.integers(0, 99), count=st.integers(2, 20))
def test_a_projection_has_few_ratios_and_is_its_own_projection(seed, count):
    weight = np.random.default_rng(seed).normal(size=(3, 3, 2, 6)).astype(np.float32)
    weight[..., 1] *= 20
    result, state, form = _projected(weight, count=count)
    ratios = result / np.abs(result).reshape(-1, 6).max(axis=0)
    integers = np.round(127 * ratios)
    assert len(np.unique(integers)) <= count
    np.testing.assert_allclose(form.projected(result, state, place=0), result, rtol=1e-4, atol=1e-6)


def test_more_values_are_nearer():
    weight = np.random.default_rng(0).normal(size=(400, 30)).astype(np.float32)
    errors = [np.square(_projected(weight, count=count)[0] - weight).mean() for count in (2, 4, 8, 16, 32)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


def test_an_output_without_weights_stays_at_0():
    weight = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    weight[:, 1] = 0
    result, _, _ = _projected(weight, count=4)
    assert (result[:, 1] == 0).all()
    assert (result[:, 0] != 0).any()


def test_depthwise_channels_have_scales_of_their_own():
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(3, 3, 4, 1)) * np.array([1, 10, 100, 1000])[:, None]).astype(np.float32)
    kernel = Kernel(place=0, layer="layer", is_depthwise=True, shape=weight.shape)
    state = assignments(weight, kernel=kernel, count=16)
    result = np.array(shared_of(kernel, count=16).projected(weight, state, place=0))
    assert (np.abs(result - weight).reshape(9, 4).max(axis=0) < 0.3 * np.abs(weight).reshape(9, 4).max(axis=0)).all()


def test_a_model_without_kernels():
    import keras

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Softmax()(inputs))
    with pytest.raises(ModelError) as caught:
        shared(model, count=16)
    assert str(caught.value) == (
        "no layer of the model has weights to share\n  fix: give a model with convolutions or dense layers"
    )
