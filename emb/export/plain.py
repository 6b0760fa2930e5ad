"""Rewrites a Keras classifier in its plainest form, equal to it: folded and split as the converters fold and split.

In the plain form no model lies within a model, no layer has an activation of its own, dropout is gone, and every
BatchNormalization and leading scaling that can go into a neighbour's weights is there; what is left of the former is a
ChannelReLU, or a depthwise convolution of one tap. It is the form whose weights are the exported file's weights.
Knows no quantization.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import EmbError, ModelError
from emb.export._batch_norm import folded_batch_norms
from emb.export._fold import (
    IDENTITY,
    array,
    changes_shape,
    is_convolution,
    is_identity,
    moved_input,
    only_reader,
    through,
)
from emb.export._inference import image_shape, in_float32

if TYPE_CHECKING:
    import keras


def plain(model: keras.Model) -> keras.Model:
    """The plain form of a functional or Sequential `model`, which is not changed; float32, weights copied.

    Every Conv2D, DepthwiseConv2D and Dense has a bias in it. Its outputs are the model's but for rounding.
    Raises ModelError for a model whose layers cannot be copied from their configuration, or that has several inputs.
    """
    image_shape(model)
    try:
        return _of_new_layers(_without_scaling(folded_batch_norms(_flat(in_float32(model)))))
    except EmbError:
        raise
    except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
        raise _not_plain(model, why=(str(error).strip() or type(error).__name__).splitlines()[0]) from error


def _not_plain(model: keras.Model, *, why: str) -> ModelError:
    return ModelError(
        f"the model {model.name} cannot be rewritten with its normalization folded",
        why=why,
        fix="build it from keras.Input with the functional API and Keras's own layers, each with a name of its own",
    )


def _flat(model: keras.Model) -> keras.Model:
    """Without inner models, activations inside of layers, and layers that do nothing in inference."""
    import keras

    copies: dict[int, Any] = {}
    activations: dict[int, Any] = {}

    def copied(layer: Any) -> Any:
        if isinstance(layer, keras.Model) or is_identity(layer):
            return layer
        if id(layer) not in copies:
            copies[id(layer)] = _copy(layer)
            if _is_split(layer):
                name = f"{layer.name}_activation"
                activations[id(copies[id(layer)])] = keras.layers.Activation(layer.activation, name=name)
        return copies[id(layer)]

    def called(layer: Any, *inputs: Any, **arguments: Any) -> Any:
        if isinstance(layer, keras.Model):
            return flattened(layer, inputs[0])
        if is_identity(layer):
            return inputs[0]
        x = layer(*inputs, **arguments)
        return activations[id(layer)](x) if id(layer) in activations else x

    def flattened(part: Any, x: Any = None) -> Any:
        functional = keras.Model(part.inputs, part.outputs) if isinstance(part, keras.Sequential) else part
        tensors = None if x is None else _in_structure(functional, x)
        clone = keras.models.clone_model(
            functional, input_tensors=tensors, clone_function=copied, call_function=called, recursive=False
        )
        return clone if x is None else clone.outputs[0]

    clone = flattened(model)
    for layer in model._flatten_layers():
        if id(layer) in copies:
            _give_weights(copies[id(layer)], layer)
    return keras.Model(clone.inputs[0], clone.outputs[0], name=model.name)


def _in_structure(model: Any, x: Any) -> Any:
    """Keras wants the tensor in the structure in which the model names its input: alone, or in a list of one."""
    return [x] if isinstance(model.input, list) else x


def _copy(layer: Any) -> Any:
    config = layer.get_config()
    if _is_split(layer):
        config |= {"activation": "linear"}
    if _has_kernel(layer):
        config |= {"use_bias": True}
    return type(layer).from_config(config)


def _give_weights(new: Any, old: Any) -> None:
    weights = old.get_weights()
    if _has_kernel(old) and not old.use_bias:
        weights.append(np.zeros(new.bias.shape, np.float32))
    new.set_weights(weights)


def _has_kernel(layer: Any) -> bool:
    from keras import layers

    return is_convolution(layer) or type(layer) is layers.Dense


def _is_split(layer: Any) -> bool:
    """Whether the layer computes something linear and then an activation, two tensors in an integer graph."""
    import keras
    from keras import layers

    kinds = (layers.SeparableConv2D, layers.Conv2DTranspose)
    has_one = _has_kernel(layer) or type(layer) in kinds
    return has_one and layer.activation not in (None, keras.activations.linear)


def _without_scaling(model: keras.Model) -> keras.Model:
    """The leading Rescaling, Normalization or BatchNormalization in the first weights, where that is exact."""
    affine, tensor = IDENTITY, model.inputs[0]
    gone: set[int] = set()
    while (call := only_reader(model, tensor)) is not None:
        step = through(call.operation, affine, tensor.shape[1:])
        if step is None:
            break
        if step is not affine and not changes_shape(call.operation):
            gone.add(id(call.operation))
        affine, tensor = step, call.output_tensors[0]
    if call is None or not gone or not _has_kernel(call.operation):
        return model
    moved = moved_input(call.operation, affine)
    if moved is None:
        return model
    return _with_first(model, call.operation, gone=gone, kernel=moved[0], bias=moved[1] + array(call.operation.bias))


def _with_first(
    model: keras.Model, first: Any, *, gone: set[int], kernel: NDArray[np.float64], bias: NDArray[np.float64]
) -> keras.Model:
    import keras

    new = type(first).from_config(first.get_config())

    def copied(layer: Any) -> Any:
        return new if layer is first else layer

    def called(layer: Any, *inputs: Any, **arguments: Any) -> Any:
        return inputs[0] if id(layer) in gone else layer(*inputs, **arguments)

    clone = keras.models.clone_model(model, clone_function=copied, call_function=called, recursive=False)
    new.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
    return keras.Model(clone.inputs[0], clone.outputs[0], name=model.name)


def _of_new_layers(model: keras.Model) -> keras.Model:
    """An equal model whose layers are called in it alone, so that a layer's own input and output are the model's."""
    import keras

    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return keras.Model(clone.inputs[0], clone.outputs[0], name=model.name)
