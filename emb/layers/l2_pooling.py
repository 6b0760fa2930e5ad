"""L2 pooling: the square root of the sum of the squares of a window. Knows no architecture, and holds no weights."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from emb.errors import SpecError

# Where a window holds nothing but zeros, as it often does behind ReLU, the root has no gradient.
_LEAST_SUM = 1e-12


@keras.saving.register_keras_serializable(package="emb")
class L2Pooling2D(keras.layers.Layer):
    """sqrt(sum of x ** 2) over windows, each channel for itself; zeros are padded, and add nothing.

    pool_size: side of the window, or (height, width).  strides: the same; None is pool_size.
    padding: "valid" or "same".
    x: (batch, height, width, channels) float. Returns (batch, new_height, new_width, channels) of the same dtype, the
    extents as of every pooling; a window of zeros gives 1e-6. Computes in float32.
    In int8 it ends in SQRT, which LiteRT computes in integers and tflite-runtime 2.14 refuses.
    Raises SpecError for a stride that differs between the axes.
    Source: the lecture, "other pooling possible, such as L2-pooling"; Nielsen 2015, chapter 6.
    """

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 2,
        strides: int | tuple[int, int] | None = None,
        padding: Literal["valid", "same"] = "valid",
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.pool_size = _pair(pool_size)
        self.strides = self.pool_size if strides is None else _pair(strides)
        self.padding = padding
        if self.strides[0] != self.strides[1]:
            raise SpecError(
                f"L2 pooling cannot move by {self.strides}",
                why="it is a depthwise convolution, and TensorFlow's takes one stride for both axes",
                fix="give strides of one number",
            )

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, "float32")
        ones = np.ones((*self.pool_size, x.shape[-1], 1), "float32")
        sums = ops.depthwise_conv(x * x, ones, strides=self.strides, padding=self.padding, data_format="channels_last")
        return ops.cast(ops.sqrt(ops.maximum(sums, _LEAST_SUM)), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        own = ("pool_size", "strides", "padding")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
