"""ReLU from a limit on, one for each channel: a normalization and its ReLU, where a convolution takes in the rest.

Knows no architecture. The limits are weights, so that they train on with the rest of a network.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="emb")
class ChannelReLU(keras.layers.Layer):
    """relu(x - limit), with one limit for each channel; with keeps_limit max(x, limit), which is the limit more.

    x: (batch, height, width, channels) float. Returns the same shape and dtype.
    The weight `limit` has the shape (1, 1, 1, channels), of a rank that TFLite's integer kernels broadcast, and is zero
    before it is set. With keeps_limit, what an exported file has is one comparison.
    """

    def __init__(self, keeps_limit: bool = False, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.keeps_limit = keeps_limit

    def build(self, input_shape: Any) -> None:
        self.limit = self.add_weight(shape=(1, 1, 1, input_shape[-1]), initializer="zeros", name="limit")

    def call(self, inputs: Any) -> Any:
        limit = ops.cast(self.limit, inputs.dtype)
        return ops.maximum(inputs, limit) if self.keeps_limit else ops.relu(inputs - limit)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "keeps_limit": self.keeps_limit}
