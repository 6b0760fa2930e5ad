"""Takes the softmax off a Keras classifier. Knows no file format."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def without_softmax(model: keras.Model) -> keras.Model:
    """The same model up to the values that its final softmax takes; the model itself if it does not end in one.

    A softmax changes no order, so that the highest score names the same class.
    """
    import keras

    layer = model.outputs[0]._keras_history.operation
    if isinstance(layer, keras.layers.Softmax):
        return keras.Model(model.inputs, layer.input, name=model.name)
    if getattr(layer, "activation", None) is not keras.activations.softmax:
        return model
    if isinstance(layer, keras.layers.Activation):
        return keras.Model(model.inputs, layer.input, name=model.name)
    linear = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    changed = keras.Model(model.inputs, linear(layer.input), name=model.name)
    linear.set_weights(layer.get_weights())
    return changed
