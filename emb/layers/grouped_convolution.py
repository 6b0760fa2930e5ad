"""A convolution in groups that also trains where the backend has no kernel for groups. Knows no architecture."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="emb")
class GroupedConv2D(keras.layers.Conv2D):
    """keras.layers.Conv2D, computed one group after the other: same weights, same outputs, channels last.

    TensorFlow has no kernel for groups on a CPU; what Keras does instead takes eight times as long a training step.
    The exported graph has one convolution with groups all the same: emb.export writes it.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        parts = zip(ops.split(inputs, self.groups, axis=-1), ops.split(kernel, self.groups, axis=-1), strict=True)
        return ops.concatenate([super(GroupedConv2D, self).convolution_op(*part) for part in parts], axis=-1)
