"""Channels of zeros behind those that are there. Knows no architecture, and holds no weights."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="emb")
class ChannelPadding(keras.layers.ZeroPadding2D):
    """`channels` more channels, all zero, as a shortcut without parameters needs them where a network widens.

    x: (batch, height, width, before) float. Returns (batch, height, width, before + channels) of the same dtype.
    A padding like Keras's own of rows and columns, of which it adds none.
    Source: He et al. 2015, "Deep residual learning for image recognition", section 3.3, option A.
    """

    def __init__(self, channels: int, **arguments: Any) -> None:
        super().__init__(padding=0, data_format="channels_last", **arguments)
        self.channels = channels

    def call(self, inputs: Any) -> Any:
        return ops.pad(inputs, [(0, 0), (0, 0), (0, 0), (0, self.channels)])

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], input_shape[-1] + self.channels)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "channels": self.channels}
        return {name: value for name, value in config.items() if name not in ("padding", "data_format")}
