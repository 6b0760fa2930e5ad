"""Models with random weights and statistics, random plans for them, and how far two models differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


def _scramble(model: Any, seed: int = 0) -> Any:
    """No weight keeps its first value: nothing is 0 that a trained network has not, and no scale is 1."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("bias", "beta", "moving_mean", "alpha"):
            variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


@pytest.fixture(scope="session")
def scramble() -> Callable[..., Any]:
    """scramble(model, seed): the same model, its biases, scales, shifts and statistics drawn at random."""
    return _scramble


@pytest.fixture(scope="session")
def made() -> Callable[..., Any]:
    """made(body, shape): the model of body(keras.layers, input), with random weights; 4 classes behind it."""
    import keras

    def make(body: Callable[[Any, Any], Any], shape: tuple[int, ...] = (6, 6, 3)) -> Any:
        keras.utils.set_random_seed(1)
        image = keras.Input(shape, name="pixels")
        x = body(keras.layers, image)
        if len(x.shape) > 2:
            x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
        return _scramble(keras.Model(image, keras.layers.Dense(4, activation="softmax", name="scores")(x)))

    return make


@pytest.fixture(scope="session")
def random_plan() -> Callable[..., Any]:
    """random_plan(model, rng): about half of the channels of every group, and at least one."""
    from emb.prune import channels
    from emb.prune._channel_graph import trace

    def plan(model: Any, rng: np.random.Generator) -> Any:
        kept = {}
        for group in trace(model).groups:
            count = len(group.channels)
            places = rng.choice(count, size=max(1, count // 2), replace=False)
            kept[group.name] = tuple(sorted(channel for place in places for channel in group.channels[place]))
        return channels.ChannelPlan(kept=kept, channels={}, tied={}, untouched={}, macs_before=0, macs_after=0)

    return plan


@pytest.fixture(scope="session")
def difference() -> Callable[..., float]:
    """difference(model, other): the largest of the outputs for random images."""

    def between(model: Any, other: Any, images: int = 4) -> float:
        shape = (images, *model.inputs[0].shape[1:])
        x = np.random.default_rng(5).uniform(0, 2, shape).astype(np.float32)
        return float(np.abs(np.asarray(model(x, training=False)) - np.asarray(other(x, training=False))).max())

    return between
