"""Batch normalization as one operation each way, where TensorFlow trains on a CPU. Knows no training.

Keras writes it as a dozen operations over whole feature maps, in float32 even where the maps are half as wide, and
TensorFlow does not join them: a third of a ResNet's step, in bfloat16 more than half. FusedBatchNormV3 is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# In bfloat16 oneDNN's vector code takes whole blocks of so many channels alone; what it does else is ten times slower.
_BLOCK = 16


@contextmanager
def fused_normalization(model: keras.Model) -> Iterator[None]:
    """Within it, the model's BatchNormalization layers train with TensorFlow's one operation; on CPUs alone.

    Layers of other classes, of other dimensions than (batch, height, width, channels) or with renorm stay as they are,
    and so does inference. To be entered before a step is traced.
    """
    layers = [layer for layer in model._flatten_layers() if _can_be_fused(layer)] if _on_tensorflow_cpu() else []
    for layer in layers:
        layer.call = partial(_call, layer, layer.call)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def _on_tensorflow_cpu() -> bool:
    import keras

    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_logical_devices("GPU")


def _can_be_fused(layer: keras.layers.Layer) -> bool:
    from keras import layers

    return (
        type(layer) is layers.BatchNormalization
        and layer.built
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and layer.compute_dtype in ("float32", "bfloat16", "float16")
        and not (layer.renorm or layer.synchronized)
    )


def _call(
    layer: keras.layers.BatchNormalization,
    original: Callable[..., Any],
    inputs: Any,
    training: bool | None = None,
    mask: Any = None,
) -> Any:
    """As the layer's own call. inputs: (batch, height, width, channels) in the layer's compute dtype.

    Statistics are float32 whatever the maps are.
    """
    if mask is not None or not (training and layer.trainable):
        return original(inputs, training=training, mask=mask)
    import tensorflow as tf

    channels = (inputs.shape[-1],)
    is_fast = inputs.dtype == tf.bfloat16 and channels[0] % _BLOCK == 0
    answer = tf.raw_ops.FusedBatchNormV3(
        x=inputs if is_fast else tf.cast(inputs, tf.float32),
        scale=tf.cast(layer.gamma.value, tf.float32) if layer.scale else tf.ones(channels),
        offset=tf.cast(layer.beta.value, tf.float32) if layer.center else tf.zeros(channels),
        mean=tf.zeros((0,)),
        variance=tf.zeros((0,)),
        epsilon=layer.epsilon,
        is_training=True,
    )
    # The operation says the variance of all images that a batch may be drawn from; Keras keeps that of the batch.
    count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
    variance = answer.batch_variance * (tf.maximum(count - 1, 1) / count)
    for moving, value in ((layer.moving_mean, answer.batch_mean), (layer.moving_variance, variance)):
        old = tf.cast(moving.value, tf.float32)
        moving.assign(tf.cast(old * layer.momentum + value * (1 - layer.momentum), moving.dtype))
    return tf.cast(answer.y, inputs.dtype)
