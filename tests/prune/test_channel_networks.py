"""Random small networks with branches: whatever is pruned, the smaller model computes what the masked one does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.layers import ChannelPadding, ChannelSplit, GroupedConv2D, LocalResponseNormalization
from emb.prune import channels
from emb.prune._channel_graph import trace
from emb.prune._dense_layers import dense_layers

pytestmark = pytest.mark.slow

_STEPS = (
    "convolution", "normalization", "activation", "residual", "projection", "padded", "inception", "dense",
    "depthwise", "grouped", "split", "gate", "response", "pooling",
)  # fmt: skip


def _step(kind: str, x: Any, rng: np.random.Generator) -> Any:
    from keras import layers

    width = x.shape[-1]

    def convolved(x: Any, filters: int, kernel: int = 3) -> Any:
        bias = bool(rng.integers(2))
        return layers.Conv2D(filters, kernel, padding="same", use_bias=bias)(x)

    def normalized(x: Any) -> Any:
        return layers.BatchNormalization(scale=bool(rng.integers(2)))(x)

    if kind == "convolution":
        return convolved(x, int(rng.integers(2, 9)))
    if kind == "normalization":
        return normalized(x)
    if kind == "activation":
        return layers.Activation(str(rng.choice(["relu", "sigmoid", "tanh", "softplus"])))(x)
    if kind == "residual":
        return layers.Add()([x, normalized(convolved(layers.ReLU()(convolved(x, 4)), width))])
    if kind == "projection":
        return layers.ReLU()(layers.Add()([convolved(x, 6, 1), normalized(convolved(x, 6))]))
    if kind == "padded":
        return layers.Add()([ChannelPadding(3)(x), convolved(x, width + 3)])
    if kind == "inception":
        pooled = layers.MaxPooling2D(3, 1, padding="same")(x)
        return layers.Concatenate()([convolved(x, 3, 1), x, layers.ReLU()(convolved(pooled, 2, 1))])
    if kind == "dense":
        new = convolved(layers.ReLU()(normalized(x)), 2)
        return layers.Concatenate()([x, new])
    if kind == "depthwise":
        return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=int(rng.integers(1, 3)))(x)
    if kind == "grouped":
        return GroupedConv2D(6, 3, groups=2, padding="same")(convolved(x, 4, 1))
    if kind == "split":
        first, second = ChannelSplit(2)(convolved(x, 6, 1))
        return layers.Concatenate()([convolved(first, 3), second])
    if kind == "gate":
        seen = layers.GlobalAveragePooling2D(keepdims=True)(x)
        return layers.Multiply()([x, layers.Dense(width, activation="sigmoid")(seen)])
    if kind == "response":
        return LocalResponseNormalization(depth_radius=int(rng.integers(0, 3)), alpha=0.3)(x)
    return layers.AveragePooling2D(2, 1, padding="same")(x)


@settings(max_examples=20)
@given(
    steps=st.lists(st.sampled_from(_STEPS), min_size=1, max_size=7),
    flat=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_the_smaller_model_computes_what_the_masked_one_does(scramble, random_plan, difference, steps, flat, seed):
    import keras
    from keras import layers

    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    image = keras.Input((5, 4, 2))
    x = layers.Conv2D(5, 3, padding="same")(image)
    for kind in steps:
        x = _step(kind, x, rng)
    x = layers.Flatten()(x) if flat else layers.GlobalAveragePooling2D()(x)
    model = scramble(keras.Model(image, layers.Dense(3, activation="softmax")(x)), seed)
    graph = trace(model)
    assert graph.untouched == {}
    plan = random_plan(model, rng)
    pruned = channels.smaller(model, plan)
    assert difference(channels.masked(model, plan), pruned) < 1e-5
    # The same without the layers that the network can do without.
    gone = {one for whole in dense_layers(graph).values() for one in whole}
    names = {group.name for group in graph.groups if gone.issuperset(group.decisions.tolist())}
    less = replace(plan, kept={name: () if name in names else kept for name, kept in plan.kept.items()})
    pruned = channels.smaller(model, less)
    assert difference(channels.masked(model, less), pruned) < 1e-5
    assert names.isdisjoint(layer.name for layer in pruned.layers)
    # Every group loses what it should: what emb.graph counts without building the model is what it counts of it.
    scores = channels.scores(model, criterion="l2")
    counted = channels.plan_for_macs(model, scores, removed=0.2, scope="global")
    assert channels.macs(channels.smaller(model, counted)) == counted.macs_after < counted.macs_before
    keras.utils.clear_session()
