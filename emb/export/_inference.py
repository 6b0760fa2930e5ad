"""A Keras model as one TensorFlow function for a single image: batch 1, float32, leading scaling folded.

Knows neither TFLite nor ONNX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import ExportError, ModelError
from emb.export._fold import IDENTITY, Affine, folded
from emb.spec.contract import Pixels

if TYPE_CHECKING:
    import keras


def image_shape(model: keras.Model) -> tuple[int, int, int]:
    """(height, width, channels) of the model's one input. Raises ModelError for any other kind of input or output."""
    if len(getattr(model, "inputs", None) or []) != 1 or len(getattr(model, "outputs", None) or []) != 1:
        counts = f"{len(model.inputs or [])} inputs and {len(model.outputs or [])} outputs"
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


def as_function(model: keras.Model, *, pixels: Pixels) -> Any:
    """tf.function from `image`, (1, height, width, channels) float32 raw pixels, to (1, classes) float32.

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
    model = _in_float32(model)
    is_raw = pixels == Pixels()
    before = IDENTITY if is_raw else Affine(scale=np.full(1, pixels.scale), offset=np.full(1, pixels.offset))
    call = folded(model, before)
    signature = [tf.TensorSpec((1, *shape), tf.float32, name="image")]

    def scores(image: Any) -> Any:
        if call is not None:
            return call(image)
        return model(image if is_raw else image * pixels.scale + pixels.offset, training=False)

    return tf.function(scores, input_signature=signature)


def _in_float32(model: keras.Model) -> keras.Model:
    """The model with every layer computing in float32; one trained in bfloat16 would export casts otherwise."""
    import keras

    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers()):
        return model

    def in_float32(layer: Any) -> Any:
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    clone = keras.models.clone_model(model, clone_function=in_float32, recursive=True)
    clone.set_weights(model.get_weights())
    return clone
