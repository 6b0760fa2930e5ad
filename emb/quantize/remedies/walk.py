"""Runs a functional Keras model call by call, so that a layer's weights can change while its input is at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

# Of all activations of all images of one walk, in float32.
_MEMORY_BYTES = 1 << 30


def walk(model: keras.Model, images: NDArray[np.float32], visit: Callable[[Any, Any], None]) -> Any:
    """What the model gives for `images`; before each call of one input, visit(layer, input) may change the layer.

    images: (n, height, width, channels). All activations are alive at once: see `few_enough`.
    """
    import keras

    def call(layer: Any, *inputs: Any, **arguments: Any) -> Any:
        if len(inputs) == 1 and keras.ops.is_tensor(inputs[0]):
            visit(layer, inputs[0])
        return layer(*inputs, **arguments)

    # As Keras runs a functional model, and clones one.
    return model._run_through_graph(keras.ops.convert_to_tensor(images), operation_fn=lambda one: one, call_fn=call)


def few_enough(model: keras.Model, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first images, as many as can be walked at once in 1 GiB; one at least."""
    numbers = sum(int(np.prod(layer.output.shape[1:])) for layer in model.layers if not isinstance(layer.output, list))
    return images[: max(1, _MEMORY_BYTES // (4 * max(1, numbers)))]


def copied(model: keras.Model) -> keras.Model:
    """An equal model with layers and weights of its own."""
    import keras

    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return keras.Model(clone.inputs[0], clone.outputs[0], name=model.name)
