"""A layer that lets channels through or not. Imports keras: to be imported where a model is rebuilt."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="emb")
class ChannelMask(keras.layers.Layer):
    """x * mask, the mask being 1 for every channel until somebody sets it.

    examples: 1 for one mask that all examples share and no training changes; more for one mask for each example of a
    batch of that size, trainable, whose gradients are those of each example alone.
    x: (batch, ..., channels) float. Returns the same shape and dtype. The weight is (examples, 1, ..., channels).
    """

    def __init__(self, *, examples: int = 1, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.examples = examples

    def build(self, input_shape: Any) -> None:
        shape = (self.examples, *(1,) * (len(input_shape) - 2), input_shape[-1])
        self.mask = self.add_weight(shape=shape, initializer="ones", trainable=self.examples > 1, name="mask")

    def call(self, inputs: Any) -> Any:
        return inputs * ops.cast(self.mask, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "examples": self.examples}
