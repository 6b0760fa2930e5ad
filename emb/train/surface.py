"""The loss around a trained model, along two random directions: what shortcuts do to it can be seen there.

Uses keras and keras.ops alone. Draws no picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import SpecError
from emb.spec.contract import Pixels
from emb.spec.dataset import Split

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

_RAW = Pixels()
_BATCH = 100  # images; the activations of 500 at 224x224 would fill the memory
# A probability of 0 would be an infinite loss; this is what float32 can tell from 1.
_LEAST_PROBABILITY = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """steps: (points,) float64 from -span to span, along both directions, 0 in the middle.

    loss: (points, points) float64, mean cross-entropy in nats; loss[i, j] at steps[i] of the first and steps[j] of
    the second direction. The one in the middle is the model's own.
    """

    steps: NDArray[np.float64]
    loss: NDArray[np.float64]


def loss_surface(
    model: keras.Model,
    split: Split,
    *,
    rng: np.random.Generator,
    span: float = 1.0,
    points: int = 21,
    pixels: Pixels = _RAW,
) -> Surface:
    """The mean cross-entropy of `model` over `split` on a square around its weights.

    model: (batch, height, width, channels) to (batch, classes) probabilities; it has its own weights again
    afterwards, whatever happens. split: the images that count, a few hundred will do.
    points: odd, at least 3; points * points passes over the images.  span: 1 goes as far as the weights are long.
    Both directions are random and filter-normalised: each filter of a direction is as long as the filter of the
    model that it is added to, so that models of different scale compare. Biases and normalizations stay as they are.
    Raises SpecError for other numbers.
    Source: Li et al. 2018, "Visualizing the loss landscape of neural nets", section 4.
    """
    _check(span, points)
    weights = [variable for variable in model.trainable_variables if len(variable.shape) > 1]
    centre = [_array(variable) for variable in weights]
    first, second = ([_direction(weight, rng) for weight in centre] for _ in range(2))
    steps = np.linspace(-span, span, points)
    loss = np.empty((points, points))
    try:
        for i, along in enumerate(steps):
            for j, across in enumerate(steps):
                for variable, weight, one, other in zip(weights, centre, first, second, strict=True):
                    variable.assign(weight + along * one + across * other)
                loss[i, j] = _loss(model, split, pixels=pixels)
    finally:
        for variable, weight in zip(weights, centre, strict=True):
            variable.assign(weight)
    return Surface(steps=steps, loss=loss)


def _direction(weight: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Normal numbers, each filter (all weights of one output, the last axis) as long as the weight's."""
    axes = tuple(range(weight.ndim - 1))
    drawn = rng.standard_normal(weight.shape)
    lengths = [np.sqrt((part.astype(np.float64) ** 2).sum(axes)) for part in (weight, drawn)]
    direction: NDArray[np.float32] = (drawn * lengths[0] / lengths[1]).astype(np.float32)
    return direction


def _loss(model: keras.Model, split: Split, *, pixels: Pixels) -> float:
    total = 0.0
    for begin in range(0, len(split), _BATCH):
        images = split.images[begin : begin + _BATCH].astype(np.float32) * np.float32(pixels.scale)
        scores = np.asarray(model.predict_on_batch(images + np.float32(pixels.offset)), np.float64)
        chosen = scores[np.arange(len(images)), split.labels[begin : begin + _BATCH]]
        # Far out the numbers overflow to NaN; that is as wrong as a model can be.
        total -= np.log(np.nan_to_num(chosen, nan=0.0).clip(_LEAST_PROBABILITY)).sum()
    return total / len(split)


def _array(variable: Any) -> NDArray[np.float32]:
    import keras

    return np.array(keras.ops.convert_to_numpy(variable), np.float32)


def _check(span: float, points: int) -> None:
    if not span > 0:
        raise SpecError(f"the span of a loss surface must be above 0, not {span:g}", fix="1 is usual")
    if points < 3 or points % 2 == 0:
        raise SpecError(
            f"a loss surface cannot have {points} points to a side",
            why="the model itself stands in its middle",
            fix="give an odd number of at least 3, e.g. 21",
        )
