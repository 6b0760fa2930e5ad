"""Layers that compute in floats what an integer graph computes in integers. Straight through for the gradient.

Written with keras.ops alone. Choose no range and know no file format. Rounding is x + stop_gradient(round(x) - x), so
that a gradient passes as if nothing had been rounded, and stops where a value lies outside of its range.
Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", section 3; Bengio et al. 2013, "Estimating or propagating gradients through stochastic neurons".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from emb.layers.channel_relu import ChannelReLU

LEVELS = 256


def rounded(x: Any) -> Any:
    """The nearest integers, with the gradient of x."""
    return x + ops.stop_gradient(ops.round(x) - x)


def on_range(x: Any, lowest: Any, highest: Any, levels: Any = LEVELS) -> Any:
    """x on the grid of `levels` integers (256 or 65,536) that stand for lowest..highest.

    lowest <= 0 <= highest, real numbers; the grid is moved by less than a step so that 0 lies on it.
    """
    step = (highest - lowest) / (levels - 1)
    first = ops.round(lowest / step)
    codes = ops.clip(x / step, first, first + levels - 1)
    return rounded(codes) * step


def on_weight_grid(kernel: Any, axes: Sequence[int], *, bits: int) -> Any:
    """kernel on the grid of its channel, symmetric: step = largest magnitude over `axes` / (2 ** (bits - 1) - 1)."""
    largest = ops.stop_gradient(ops.max(ops.abs(kernel), axis=tuple(axes), keepdims=True))
    step = ops.where(largest > 0, largest, 1.0) / (2 ** (bits - 1) - 1)
    return rounded(kernel / step) * step


@keras.saving.register_keras_serializable(package="emb")
class FakeQuantization(keras.layers.Layer):
    """x as 8-bit (or `levels`) integers of the range in its two variables hold it. Same shape and dtype.

    The variables `lowest` and `highest` do not train; 0 lies between them. While the variable `enabled` is 0, x passes.
    """

    def __init__(self, lowest: float = 0.0, highest: float = 1.0, levels: int = LEVELS, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.initial = (lowest, highest)
        self.levels = levels

    def build(self, input_shape: Any) -> None:
        self.lowest, self.highest = (
            self.add_weight(shape=(), initializer=keras.initializers.Constant(value), trainable=False, name=name)
            for name, value in zip(("lowest", "highest"), self.initial, strict=True)
        )
        self.enabled = self.add_weight(shape=(), initializer="ones", trainable=False, name="enabled")

    def call(self, inputs: Any) -> Any:
        quantized = on_range(inputs, self.lowest.value, self.highest.value, self.levels)
        return ops.where(self.enabled.value > 0, quantized, inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        lowest, highest = self.initial
        return {**super().get_config(), "lowest": lowest, "highest": highest, "levels": self.levels}


class _QuantizedWeights:
    """What the layers below share: how many bits their kernel's integers have, and one way to use another kernel.

    They have no activation of their own, and their channels come last.
    """

    # Of a kernel; each position along the others is an output channel.
    summed_axes: tuple[int, ...]

    def __init__(self, *arguments: Any, bits: int = 8, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.bits = bits

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        kernel = self.kernel  # type: ignore[attr-defined]
        return self.with_kernel(inputs, on_weight_grid(kernel, self.summed_axes, bits=self.bits))

    def with_kernel(self, inputs: Any, kernel: Any) -> Any:
        """What the layer gives with that kernel, taken as it is, and its own bias."""
        x = self.product(inputs, kernel)
        return x + self.bias if self.use_bias else x  # type: ignore[attr-defined]

    def product(self, inputs: Any, kernel: Any) -> Any:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bits": self.bits}  # type: ignore[misc]


@keras.saving.register_keras_serializable(package="emb")
class QuantizedConv2D(_QuantizedWeights, keras.layers.Conv2D):
    """keras.layers.Conv2D whose kernel lies on the grid of each output channel. Groups are computed one by one."""

    summed_axes = (0, 1, 2)

    def product(self, inputs: Any, kernel: Any) -> Any:
        if self.groups == 1:
            return self.convolution_op(inputs, kernel)
        parts = zip(ops.split(inputs, self.groups, axis=-1), ops.split(kernel, self.groups, axis=-1), strict=True)
        return ops.concatenate([self.convolution_op(*part) for part in parts], axis=-1)


@keras.saving.register_keras_serializable(package="emb")
class QuantizedDepthwiseConv2D(_QuantizedWeights, keras.layers.DepthwiseConv2D):
    """keras.layers.DepthwiseConv2D whose kernel lies on the grid of each output channel."""

    summed_axes = (0, 1)

    def product(self, inputs: Any, kernel: Any) -> Any:
        return ops.depthwise_conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )


@keras.saving.register_keras_serializable(package="emb")
class QuantizedDense(_QuantizedWeights, keras.layers.Dense):
    """keras.layers.Dense whose kernel lies on the grid of each unit."""

    summed_axes = (0,)

    def product(self, inputs: Any, kernel: Any) -> Any:
        return ops.matmul(inputs, kernel)


@keras.saving.register_keras_serializable(package="emb")
class QuantizedBatchNormalization(keras.layers.BatchNormalization):
    """An integer graph's multiplication and addition: the product has a range of its own, the constants too.

    x: (…, channels). Always in inference, with the statistics that it has; gamma and beta train.
    lowest, highest: of the product, in variables that do not train. While the variable `enabled` is 0, nothing rounds.
    """

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.lowest, self.highest = (
            self.add_weight(shape=(), initializer=keras.initializers.Constant(value), trainable=False, name=name)
            for name, value in (("lowest", 0.0), ("highest", 1.0))
        )
        self.enabled = self.add_weight(shape=(), initializer="ones", trainable=False, name="enabled")

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        scale, offset = self.constants()
        product = on_range(inputs * _on_own_range(scale), self.lowest.value, self.highest.value)
        return ops.where(self.enabled.value > 0, product + _on_own_range(offset), inputs * scale + offset)

    def constants(self) -> tuple[Any, Any]:
        """(scale, offset), each (channels,), that inference multiplies by and adds."""
        scale = ops.rsqrt(self.moving_variance + self.epsilon) * (self.gamma if self.scale else 1.0)
        return scale, (self.beta if self.center else 0.0) - self.moving_mean * scale


@keras.saving.register_keras_serializable(package="emb")
class QuantizedChannelReLU(ChannelReLU):
    """A ChannelReLU whose limits lie on the grid of x's integers, from which an integer graph chooses the larger ones.

    What rounding a limit moves on the average is taken back: half of it, as if every second value lay below the limit;
    all of it where the limit is above the range, nothing where it is below. An integer file has that in a bias.
    lowest, highest: of x, in variables that do not train. Nothing rounds while both are 0, or `enabled` is.
    """

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.lowest, self.highest = (
            self.add_weight(shape=(), initializer="zeros", trainable=False, name=name) for name in ("lowest", "highest")
        )
        self.enabled = self.add_weight(shape=(), initializer="ones", trainable=False, name="enabled")

    def call(self, inputs: Any) -> Any:
        lowest, highest, limit = self.lowest.value, self.highest.value, self.limit.value
        on_grid = on_range(limit, lowest, ops.maximum(highest, lowest + np.float32(1e-6)))
        share = ops.where(limit > highest, 1.0, ops.where(limit < lowest, 0.0, 0.5))
        rounded_limit = limit + ops.stop_gradient(on_grid - limit)
        moved = share * ops.stop_gradient(on_grid - limit)
        is_rounded = ops.logical_and(self.enabled.value > 0, highest > lowest)
        return ops.where(is_rounded, ops.maximum(inputs, rounded_limit) - limit - moved, ops.relu(inputs - limit))


def _on_own_range(values: Any) -> Any:
    lowest = ops.minimum(ops.stop_gradient(ops.min(values)), 0.0)
    highest = ops.maximum(ops.stop_gradient(ops.max(values)), 0.0)
    return on_range(values, lowest, ops.maximum(highest, lowest + np.float32(1e-6)))
