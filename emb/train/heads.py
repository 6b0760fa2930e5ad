"""Which layers of a model are its head, and which serve the training only. Knows no training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from emb.errors import ModelError

if TYPE_CHECKING:
    import keras


def without_auxiliaries(model: keras.Model) -> keras.Model:
    """The model of the first output alone, with the same layers and weights; `model` itself if it has no other."""
    if len(model.outputs) == 1:
        return model
    import keras

    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def head(model: keras.Model) -> keras.layers.Layer:
    """The last layer with trainable weights before the first output. Raises ModelError if there is none."""
    import keras

    # Layers are sorted by their distance from the output.
    layers = keras.Model(model.inputs[0], model.outputs[0]).layers
    for layer in reversed(layers):
        if layer.trainable_variables:
            return layer
    raise ModelError("the model has no trainable weights", fix="set train.epochs to 0")


@contextmanager
def frozen_but_head(model: keras.Model) -> Iterator[None]:
    """Within it, only the head is trainable, and normalisation uses the statistics that it has."""
    kept = head(model)
    before = [(layer, layer.trainable) for layer in _all_layers(model)]
    try:
        for layer in model.layers:
            layer.trainable = layer is kept
        yield
    finally:
        # Outer layers first: setting one sets those within it.
        for layer, trainable in before:
            layer.trainable = trainable


def _all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _all_layers(layer)
