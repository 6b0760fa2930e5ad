"""Local response normalization, across neighbouring channels or across neighbouring positions of one channel.

Knows no architecture. Holds no weights: its window is a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops

from emb.errors import SpecError

Across = Literal["channels", "space"]


@keras.saving.register_keras_serializable(package="emb")
class LocalResponseNormalization(keras.layers.Layer):
    """x / (k + alpha * sum of the squares of its neighbours) ** beta.

    across="channels": the neighbours are the 2 * depth_radius + 1 channels around the value's own, at its position
    (inter-channel).  across="space": the (2 * depth_radius + 1) ** 2 positions around it, in its channel
    (intra-channel). What lies outside counts as zero; the sum is not divided by the number of neighbours, as Caffe
    does it. The lecture's n is 2 * depth_radius + 1.

    positions: where each channel stood among its neighbours before some were pruned, ascending from 0; None where
    all are there. What is missing counts as zero, so that a pruned network computes what one with zeros would.

    x: (batch, height, width, channels) float. Returns the same shape and dtype; computes in float32.
    Raises SpecError for a negative radius or alpha, k not above 0, another direction, or not one position a channel.

    With beta = 0.75 it is written in multiplications, one convolution and rsqrt, which int8 TFLite has on every
    runtime that emb knows; another beta becomes a power, which TFLite has in float alone. Measured on uniform
    inputs against the same float layer: see docs/reference/models.md.
    Source: Krizhevsky, Sutskever and Hinton 2012, section 3.3 (k = 2, n = 5, alpha = 1e-4, beta = 0.75).
    """

    def __init__(
        self,
        depth_radius: int = 2,
        k: float = 2.0,
        alpha: float = 1e-4,
        beta: float = 0.75,
        across: Across = "channels",
        positions: Sequence[int] | None = None,
        **arguments: Any,
    ) -> None:
        _check(depth_radius=depth_radius, k=k, alpha=alpha, across=across)
        super().__init__(**arguments)
        self.depth_radius, self.k, self.alpha, self.beta, self.across = depth_radius, k, alpha, beta, across
        self.positions = None if positions is None else [int(position) for position in positions]

    def build(self, input_shape: Any) -> None:
        if self.positions is not None and len(self.positions) != input_shape[-1]:
            raise SpecError(
                f"{self.name} has {len(self.positions)} positions and {input_shape[-1]} channels",
                fix="give one position for each channel, or none at all",
            )

    def call(self, inputs: Any) -> Any:
        # In 16 bits the squares of activations above 256 would be infinite.
        x = ops.cast(inputs, "float32")
        base = self._window_sum(x * x) + self.k
        if self.beta == 0.75:
            root = ops.rsqrt(base)
            # base ** -0.75 = root ** 1.5 = root ** 2 / root ** 0.5
            scale = root * root * ops.rsqrt(root)
        else:
            scale = ops.power(base, -self.beta)
        return ops.cast(x * scale, inputs.dtype)

    def _window_sum(self, squares: Any) -> Any:
        """alpha times the sum over the window. A convolution, because its sums are exact in int8."""
        channels = squares.shape[-1]
        if self.across == "channels":
            places = np.arange(channels) if self.positions is None else np.array(self.positions)
            distance = np.abs(np.subtract.outer(places, places))
            band = np.where(distance <= self.depth_radius, self.alpha, 0.0)[np.newaxis, np.newaxis]
            return ops.conv(squares, band.astype("float32"), padding="valid", data_format="channels_last")
        side = 2 * self.depth_radius + 1
        kernel = np.full((side, side, channels, 1), self.alpha, "float32")
        return ops.depthwise_conv(squares, kernel, padding="same", data_format="channels_last")

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = ("depth_radius", "k", "alpha", "beta", "across", "positions")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _check(*, depth_radius: int, k: float, alpha: float, across: str) -> None:
    if across not in get_args(Across):
        raise SpecError(f"across cannot be {across!r}", fix=f"set it to one of {', '.join(get_args(Across))}")
    if depth_radius < 0 or alpha < 0 or not k > 0:
        raise SpecError(
            f"no local response normalization has depth_radius {depth_radius}, k {k:g} and alpha {alpha:g}",
            why="what is raised to the power -beta must be above 0",
            fix="give a depth_radius and an alpha of at least 0, and k above 0",
        )
