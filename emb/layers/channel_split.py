"""The channels in equal parts, as the branches of a split grouped convolution read them. Holds no weights."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="emb")
class ChannelSplit(keras.layers.Layer):
    """`groups` tensors of the same number of channels each, the first channels first.

    x: (batch, height, width, channels) float, channels a multiple of `groups`.
    Returns a list of `groups` tensors, (batch, height, width, channels / groups) of the same dtype.
    One SPLIT in every exported format, where slicing would be one operation for each part.
    """

    def __init__(self, groups: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.groups = groups

    def call(self, inputs: Any) -> Any:
        return ops.split(inputs, self.groups, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups}
