"""Lets a layer's weights take few different values: k-means weight sharing. Makes no file smaller and nothing faster.

Every weight is stored as before; few different ones pay where the file is compressed. Int8 weights have a scale for
each output channel, under which the same value becomes another integer in every channel. So what is shared is not
the weight but its ratio to the largest of its channel: the integers of a layer are then as few as its values. The
values -1 and 1 are always among them, as every channel has a largest weight.
Source: Han et al. 2016, section 3; the ratios are emb's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import ModelError
from emb.prune._kernels import Kernel, OnKernels, kernels

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

    Arrays = Mapping[int, NDArray[Any]]

_ROUNDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared(OnKernels):
    """Which weights share a value: the constraint that emb.train keeps. Who shares with whom is settled at the start.

    count: of different ratios in a layer.
    """

    count: int

    def is_due(self, step: int, *, steps: int) -> bool:
        """See emb.train.Constraint."""
        del steps
        return step == 0

    def states(self, weights: Arrays, *, step: int, steps: int) -> dict[int, NDArray[np.int32]]:
        """place -> the number of each weight's value, from 0, ascending; the first is -1, the last 1."""
        del step, steps
        return {
            kernel.place: assignments(weights[kernel.place], kernel=kernel, count=self.count) for kernel in self.layers
        }

    def projected(self, weight: Any, state: Any, *, place: int) -> Any:
        """The least squares of the values for the scales that the channels' largest weights have now.

        The gradient's step so moves a value by the mean of its members' gradients, weighted by their scales.
        """
        from keras import ops

        kernel = next(kernel for kernel in self.layers if kernel.place == place)
        w = ops.reshape(ops.cast(weight, "float32"), (-1, int(np.prod(kernel.shape[-kernel.outputs :]))))
        numbers = ops.reshape(state, w.shape)
        extreme = ops.cast(ops.logical_or(numbers == 0, numbers == self.count - 1), "float32")
        sign = ops.where(numbers == 0, -1.0, 1.0)
        scale = ops.sum(w * sign * extreme, axis=0) / ops.maximum(ops.sum(extreme, axis=0), 1.0)
        scale = ops.maximum(scale, 0.0)
        spread = ops.broadcast_to(scale, w.shape)
        flat = ops.reshape(numbers, (-1,))
        total = ops.segment_sum(ops.reshape(w * spread, (-1,)), flat, num_segments=self.count)
        power = ops.segment_sum(ops.reshape(spread * spread, (-1,)), flat, num_segments=self.count)
        free = np.r_[0, np.ones(self.count - 2), 0].astype(np.float32)
        ends = np.r_[-1, np.zeros(self.count - 2), 1].astype(np.float32)
        values = free * ops.clip(total / ops.maximum(power, 1e-30), -1.0, 1.0) + ends
        shared = ops.reshape(ops.take(values, numbers) * spread, kernel.shape)
        return ops.cast(shared, weight.dtype)


def shared(model: keras.Model, *, count: int) -> Shared:
    """The constraint that lets every kernel have `count` values. Raises ModelError for a model without kernels."""
    found, whole = kernels(model)
    if not found:
        raise ModelError(
            "no layer of the model has weights to share", fix="give a model with convolutions or dense layers"
        )
    return Shared(count=count, layers=found, left_whole=whole)


def assignments(weight: NDArray[Any], *, kernel: Kernel, count: int) -> NDArray[np.int32]:
    """The number of each weight's value, of the weight's shape: k-means of the ratios to the channel's largest weight.

    A ratio counts as much as its channel's scale squared, so that what is least is the error of the weights themselves.
    """
    w = weight.astype(np.float64).reshape(-1, int(np.prod(kernel.shape[-kernel.outputs :])))
    scale = np.abs(w).max(axis=0)
    ratios = w / np.where(scale == 0, 1, scale)
    centers = k_means(ratios.ravel(), np.broadcast_to(scale**2, w.shape).ravel(), count=count)
    numbers: NDArray[np.int32] = np.searchsorted(_borders(centers), ratios.ravel()).astype(np.int32)
    return numbers.reshape(weight.shape)


def k_means(points: NDArray[np.float64], masses: NDArray[np.float64], *, count: int) -> NDArray[np.float64]:
    """`count` ascending centers of points in [-1, 1], the first at -1 and the last at 1, by Lloyd's iteration.

    It starts from centers at equal distances, which Han et al. 2016 (section 3.2) found best: large weights, which
    matter most, are few, and other starts leave them no center. A center without points stays where it is.
    """
    order = np.argsort(points, kind="stable")
    points, masses = points[order], masses[order]
    mass = np.concatenate([[0.0], np.cumsum(masses)])
    moment = np.concatenate([[0.0], np.cumsum(masses * points)])
    centers = np.linspace(-1, 1, count)
    for _ in range(_ROUNDS):
        cuts = np.concatenate([[0], np.searchsorted(points, _borders(centers)), [len(points)]])
        held = np.diff(mass[cuts])
        fresh = np.where(held > 0, np.diff(moment[cuts]) / np.where(held > 0, held, 1), centers)
        fresh[0], fresh[-1] = -1.0, 1.0
        if np.array_equal(fresh, centers):
            break
        centers = fresh
    return centers


def _borders(centers: NDArray[np.float64]) -> NDArray[np.float64]:
    return (centers[1:] + centers[:-1]) / 2
