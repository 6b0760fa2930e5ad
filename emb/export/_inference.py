"""A Keras model as one TensorFlow function for a single image: batch 1, float32, leading scaling folded.

Knows neither TFLite nor ONNX.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import ExportError, ModelError
from emb.export._batch_norm import folded_batch_norms, with_limits_kept
from emb.export._fold import IDENTITY, Affine, folded
from emb.spec.contract import Pixels

if TYPE_CHECKING:
    import keras

# Numbers in a weight that is worth keeping out of a converter; small ones it may fold and tidy as it likes.
LARGE_WEIGHT = 1 << 15


def image_shape(model: keras.Model) -> tuple[int, int, int]:
    """(height, width, channels) of the model's one input. Raises ModelError for any other kind of input or output."""
    inputs, outputs = (getattr(model, name, None) or [] for name in ("inputs", "outputs"))
    if len(inputs) != 1 or len(outputs) != 1:
        counts = f"{len(inputs)} inputs and {len(outputs)} outputs"
        raise ModelError(
            f"the model {model.name} has {counts}",
            why="emb deploys image classifiers: one image in, one row of scores out",
            fix="build a keras.Model from the one input to the one output that classifies",
        )
    shape = tuple(model.inputs[0].shape)[1:]
    if len(shape) != 3 or None in shape:
        raise ModelError(
            f"the model {model.name} takes inputs of shape {_text(model.inputs[0].shape)}",
            why="a deployed graph is static: it needs (batch, height, width, channels) with known numbers",
            fix="rebuild the model on keras.Input(shape=(height, width, channels)) and load its weights",
        )
    return shape


def _text(shape: Any) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


def as_function(model: keras.Model, *, pixels: Pixels) -> tuple[Any, list[NDArray[np.float32]]]:
    """tf.function from `image`, (1, height, width, channels) float32 raw pixels, and large weights to (1, classes).

    Returns it and the large weights; the input for the one in place n is called `weight_input(n)`. A converter that
    never sees the 123 million weights of a VGG-16's dense layers needs neither time nor memory for its copies of them.
    pixels: how what the model takes follows from a raw pixel.
    """
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            f"Keras runs on {keras.backend.backend()}, and only its TensorFlow backend can be exported",
            fix="save the model, and export it in a process with KERAS_BACKEND=tensorflow",
        )
    shape = image_shape(model)
    model = with_limits_kept(folded_batch_norms(in_float32(model)))
    is_raw = pixels == Pixels()
    before = IDENTITY if is_raw else Affine(scale=np.full(1, pixels.scale), offset=np.full(1, pixels.offset))
    call = folded(model, before)

    def scores(image: Any, *weights: Any) -> Any:
        # A dense kernel comes with its units first, as TFLite stores it. Otherwise its converter makes a BATCH_MATMUL
        # of a dense layer without bias, and loses the ReLU behind it.
        given = [tf.transpose(weight) if len(weight.shape) == 2 else weight for weight in weights]
        with keras.StatelessScope(list(zip(variables, given, strict=True))), _convolutions_as_one_operation():
            if call is not None:
                return call(image)
            return model(image if is_raw else image * pixels.scale + pixels.offset, training=False)

    variables = _large_kernels(model)
    signature = [tf.TensorSpec((1, *shape), tf.float32, name="image")]
    values = [np.asarray(keras.ops.convert_to_numpy(variable)) for variable in variables]
    values = [value.T if value.ndim == 2 else value for value in values]
    for place, value in enumerate(values):
        signature.append(tf.TensorSpec(value.shape, tf.float32, name=weight_input(place)))
    return tf.function(scores, input_signature=signature), values


def weight_input(place: int) -> str:
    """Name of the input for the large weight in that place."""
    return f"large_weight_{place}"


def _large_kernels(model: keras.Model) -> list[Any]:
    """Kernels of convolutions and dense layers, where a converter has nothing to gain from knowing their values.

    Of Keras's own layers in the model's own graph alone: in a layer of somebody else's, a BatchNormalization may
    follow that only a converter can fold.
    """
    import keras

    from emb.layers import GroupedConv2D

    kernels: dict[int, Any] = {}
    kinds = (keras.layers.Conv2D, GroupedConv2D, keras.layers.Dense)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            kernels |= {id(kernel): kernel for kernel in _large_kernels(layer)}
        elif type(layer) in kinds and np.prod(layer.kernel.shape) >= LARGE_WEIGHT:
            kernels[id(layer.kernel)] = layer.kernel
    return list(kernels.values())


@contextlib.contextmanager
def _convolutions_as_one_operation() -> Iterator[None]:
    """Within the block a grouped Conv2D is TensorFlow's own Conv2D, which knows groups.

    Keras calls an XLA-compiled function instead, as TensorFlow's CPU kernel has no groups; converters to ONNX do not
    look into it. emb's own layer computes group by group.
    """
    import keras
    import tensorflow as tf

    from emb.layers import GroupedConv2D

    classes = (keras.layers.Conv2D, GroupedConv2D)
    original, own = (one.convolution_op for one in classes)

    def convolution(layer: Any, inputs: Any, kernel: Any) -> Any:
        if layer.groups == 1 or layer.data_format != "channels_last":
            return original(layer, inputs, kernel)
        strides, dilations, padding = list(layer.strides), list(layer.dilation_rate), layer.padding.upper()
        return tf.nn.conv2d(inputs, kernel, strides, padding, dilations=dilations)

    for one in classes:
        one.convolution_op = convolution
    try:
        yield
    finally:
        keras.layers.Conv2D.convolution_op, GroupedConv2D.convolution_op = original, own


def in_float32(model: keras.Model) -> keras.Model:
    """The model with every layer computing in float32; one trained in bfloat16 would export casts otherwise."""
    import keras

    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers()):
        return model

    def in_float32(layer: Any) -> Any:
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    clone = keras.models.clone_model(model, clone_function=in_float32, recursive=True)
    clone.set_weights(model.get_weights())
    return clone
