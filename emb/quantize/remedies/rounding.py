"""Learned rounding of weights: up or down, whichever leaves a layer's output closer to the float one's.

The result lies on the grid that a converter finds again: each channel's largest weight keeps its value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize.remedies.placement import has_kernel
from emb.quantize.remedies.simulation import Ranges, simulated
from emb.quantize.remedies.walk import copied, few_enough, walk

if TYPE_CHECKING:
    import keras

STEPS = 400
_BATCH = 32
_LEARNING_RATE = 1e-2
# How strongly, from which to which exponent, and after which share of the steps the relaxed choice is pushed to up or
# down: the paper's. The error's unit is that of rounding to the nearest.
_WEIGHT, _FIRST_EXPONENT, _LAST_EXPONENT, _FREE_SHARE = 0.01, 20.0, 2.0, 0.2
# The sigmoid is stretched by these and clipped, so that it reaches 0 and 1; Louizos et al. 2018.
_STRETCH_LOW, _STRETCH_HIGH = -0.1, 1.1


def rounding_learned(
    model: keras.Model, images: NDArray[np.float32], ranges: Ranges, *, seed: int, bits: int = 8
) -> tuple[keras.Model, dict[str, float]]:
    """(the model with weights on their grids, {layer: share of its output's error left}) of a plain model.

    images: (n, height, width, channels) for calibration.  ranges: of the integer graph.  bits: of the weights.
    Layer by layer, on the integer graph's own inputs, the mean squared difference to the float layer's output is
    made small over all choices of up and down. A layer where that is no better than rounding to the nearest keeps
    the nearest; its share is 1. One seed gives one result.
    Source: Nagel et al. 2020, "Up or down? Adaptive rounding for post-training quantization", section 3.3.
    """
    images = few_enough(model, images)
    wanted: dict[str, Any] = {}

    def remember(layer: Any, x: Any) -> None:
        if has_kernel(layer) and layer.name not in wanted:
            wanted[layer.name] = layer(x)

    walk(model, images, remember)
    twin = simulated(model, ranges, bits=bits)
    new = copied(model)
    kernels = {layer.name: layer.kernel for layer in new.layers if layer.name in wanted}
    shares: dict[str, float] = {}
    rng = np.random.default_rng(seed)

    def learn(layer: Any, x: Any) -> None:
        if layer.name not in wanted or layer.name in shares:
            return
        kernel, shares[layer.name] = learned_kernel(layer, x, wanted.pop(layer.name), rng=rng)
        layer.kernel.assign(kernel)
        kernels[layer.name].assign(kernel)

    walk(twin, images, learn)
    return new, shares


def learned_kernel(layer: Any, x: Any, wanted: Any, *, rng: np.random.Generator) -> tuple[NDArray[np.float32], float]:
    """(kernel, share of the error left) for a simulating layer with input x, (n, …), that should give `wanted`."""
    kernel = np.asarray(layer.kernel, np.float64)
    step = _step(layer, kernel)
    low = np.floor(kernel / step)
    fraction = kernel / step - low
    is_largest = np.abs(kernel / step) > 2 ** (layer.bits - 1) - 1 - 1e-4
    nearest = np.round(kernel / step)
    before = _error(layer, nearest * step, x, wanted)
    if before == 0:
        return (nearest * step).astype(np.float32), 1.0
    up = _learned(layer, x, wanted, low=low, step=step, fraction=fraction, unit=before, rng=rng)
    learned = np.where(is_largest, nearest, low + up)
    after = _error(layer, learned * step, x, wanted)
    if after >= before:
        return (nearest * step).astype(np.float32), 1.0
    return (learned * step).astype(np.float32), after / before


def _step(layer: Any, kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = np.abs(kernel).max(axis=layer.summed_axes, keepdims=True)
    step: NDArray[np.float64] = np.where(largest > 0, largest, 1.0) / (2 ** (layer.bits - 1) - 1)
    return step


def _learned(
    layer: Any,
    x: Any,
    wanted: Any,
    *,
    low: NDArray[np.float64],
    step: NDArray[np.float64],
    fraction: NDArray[np.float64],
    unit: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """1 where a weight goes up, 0 where down. unit: the error that counts as 1."""
    import keras
    import tensorflow as tf

    floor, steps = tf.constant(low, tf.float32), tf.constant(step, tf.float32)
    reached = np.clip((fraction - _STRETCH_LOW) / (_STRETCH_HIGH - _STRETCH_LOW), 1e-4, 1 - 1e-4)
    choice = keras.Variable(np.log(reached / (1 - reached)), dtype="float32", name="choice")
    # Keras's own epsilon, 1e-7, is as large as many of these gradients.
    optimizer = keras.optimizers.Adam(learning_rate=_LEARNING_RATE, epsilon=1e-8)
    optimizer.build([choice])

    def relaxed() -> Any:
        return tf.clip_by_value(tf.sigmoid(choice.value) * (_STRETCH_HIGH - _STRETCH_LOW) + _STRETCH_LOW, 0.0, 1.0)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def descend(inputs: Any, outputs: Any, exponent: Any, weight: Any) -> None:
        with tf.GradientTape() as tape:
            up = relaxed()
            given = layer.with_kernel(inputs, (floor + up) * steps)
            error = tf.reduce_mean(tf.square(given - outputs)) / unit
            undecided = tf.reduce_sum(1 - tf.abs(2 * up - 1) ** exponent)
            loss = error + weight * undecided
        optimizer.apply([tape.gradient(loss, choice.value)])

    for number in range(STEPS):
        chosen = rng.choice(len(x), size=min(_BATCH, len(x)), replace=False)
        progress = max(0.0, number / STEPS - _FREE_SHARE) / (1 - _FREE_SHARE)
        exponent = _LAST_EXPONENT + (_FIRST_EXPONENT - _LAST_EXPONENT) * 0.5 * (1 + np.cos(np.pi * progress))
        weight = _WEIGHT if progress > 0 else 0.0
        numbers = (tf.constant(value, tf.float32) for value in (exponent, weight))
        descend(tf.gather(x, chosen), tf.gather(wanted, chosen), *numbers)
    decided: NDArray[np.float64] = (relaxed().numpy() >= 0.5).astype(np.float64)
    return decided


def _error(layer: Any, kernel: NDArray[np.float64], x: Any, wanted: Any) -> float:
    difference = np.asarray(layer.with_kernel(x, kernel.astype(np.float32)) - wanted, np.float64)
    return float(np.mean(np.square(difference)))
