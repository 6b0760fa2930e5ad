"""Rebuilds a Keras model with fewer channels or layers, or with masks behind its layers. Decides nothing.

Layers keep their names, settings and what is left of their weights. Imports keras inside of functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.prune._channel_graph import ChannelGraph, Kept, LayerChannels
from emb.prune._channel_rules import Axes
from emb.prune._ties import Channels

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray


def smaller(model: keras.Model, graph: ChannelGraph, kept: Kept) -> keras.Model:
    """An ordinary model without the channels that are not kept; the weights that are left are those of `model`.

    Layers of which no channel is left are gone, and so is a concatenation of which one input is left.
    """
    import keras

    gone: list[Any] = []
    counts: dict[str, int] = {}

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        number = counts.get(layer.name, 0)
        counts[layer.name] = number + 1
        results = graph.calls.get((layer.name, number), ())
        if any(len(channels) and not kept[channels].any() for channels in results):
            gone.extend(keras.KerasTensor((None, 0)) for _ in results)
            return gone[-1] if len(results) == 1 else gone[-len(results) :]
        if type(layer).__name__ == "Concatenate" and any(_has(gone, value) for value in arguments[0]):
            left = [value for value in arguments[0] if not _has(gone, value)]
            return layer(left, **options) if len(left) > 1 else left[0]
        return layer(*arguments, **options)

    original = _functional(model)
    clone: keras.Model = keras.models.clone_model(
        original,
        input_tensors=_inputs(original),
        clone_function=lambda layer: _layer(layer, graph.layers.get(layer.name), kept),
        call_function=call,
    )
    _carry(original, clone, graph.layers, kept)
    return clone


def without_branches(model: keras.Model, sums: Mapping[str, int]) -> keras.Model:
    """An ordinary model in which some sums pass one of their inputs on, and the layers are gone that made the other.

    sums: by the layer's name, which input it passes on, 0 or 1. A rectifier behind such a sum goes as well, if another
    one has made what is passed on.
    """
    import keras

    passed_on: list[Any] = []
    rectified: list[Any] = []

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        given = [one for one in keras.tree.flatten((arguments, options)) if isinstance(one, keras.KerasTensor)]
        if layer.name in sums:
            passed_on.append(given[sums[layer.name]])
            return passed_on[-1]
        rectifies = _is_rectifier(layer)
        if rectifies and _has(passed_on, given[0]) and _has(rectified, given[0]):
            return given[0]
        result = layer(*arguments, **options)
        if rectifies or _is_relu(getattr(layer, "activation", None)):
            rectified.append(result)
        return result

    original = _functional(model)
    clone: keras.Model = keras.models.clone_model(
        original, input_tensors=_inputs(original), clone_function=_copy, call_function=call
    )
    _carry(original, clone, {}, np.ones(0, dtype=np.bool_))
    return clone


def with_masks(
    model: keras.Model,
    places: Mapping[tuple[str, int], tuple[Channels | None, ...]],
    *,
    examples: int = 1,
    dropout: bool = True,
) -> tuple[keras.Model, tuple[tuple[Any, Channels], ...]]:
    """A model with the layers and weights of `model` and a ChannelMask behind some of them, and these masks.

    places: (layer, which of its calls, from 0) -> for each output the channels that its mask holds, None for no mask.
    dropout: False leaves what Dropout layers drop, and the statistics of batch normalizations, out of a training.
    Every mask is 1 everywhere, so that the model's outputs are those of `model`.
    """
    import keras

    from emb.prune._channel_mask import ChannelMask

    masks: list[tuple[Any, Channels]] = []
    counts: dict[str, int] = {}

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        result = layer(*arguments, **options)
        number = counts.get(layer.name, 0)
        counts[layer.name] = number + 1
        wanted = places.get((layer.name, number), ())
        if not any(channels is not None for channels in wanted):
            return result
        outputs = []
        for place, (value, channels) in enumerate(zip(_listed(result), wanted, strict=True)):
            if channels is not None:
                mask = ChannelMask(examples=examples, name=f"{layer.name}_mask{number}_{place}")
                masks.append((mask, channels))
                value = mask(value)
            outputs.append(value)
        return outputs if isinstance(result, list | tuple) else outputs[0]

    original = _functional(model)
    clone: keras.Model = keras.models.clone_model(
        original,
        input_tensors=_inputs(original),
        clone_function=_copy if dropout else _still_copy,
        call_function=call,
    )
    _carry(original, clone, {}, np.ones(0, dtype=np.bool_))
    return clone, tuple(masks)


def set_masks(masks: tuple[tuple[Any, Channels], ...], kept: Kept) -> None:
    """Let through what is kept, and nothing else."""
    for layer, channels in masks:
        layer.mask.assign(kept[channels].astype(np.float32).reshape(layer.mask.shape))


def cut(values: NDArray[Any], axes: Axes, kept: Kept) -> NDArray[Any]:
    """The part of a weight that belongs to channels that are kept."""
    for axis, channels in enumerate(axes):
        if channels is not None:
            values = np.compress(kept[channels], values, axis=axis)
    return values


def numbers(variable: Any) -> NDArray[Any]:
    """A variable's value as an array of its own."""
    import keras

    return np.array(keras.ops.convert_to_numpy(variable))


def _functional(model: Any) -> Any:
    """The same layers as a functional model that was never compiled; what a Sequential one is inside."""
    import keras

    inputs, outputs = (values[0] if len(values) == 1 else values for values in (model.inputs, model.outputs))
    return keras.Model(inputs, outputs, name=model.name)


def _inputs(model: Any) -> Any:
    """New inputs of the same names; Keras would give those without one a name of the tensor."""
    import keras

    made = [
        keras.Input(batch_shape=value.shape, dtype=value.dtype, name=value._keras_history.operation.name)
        for value in model.inputs
    ]
    return made[0] if len(made) == 1 else made


def _layer(layer: Any, channels: LayerChannels | None, kept: Kept) -> Any:
    if channels is None or not channels.settings or not kept[channels.results[0]].any():
        return _copy(layer)
    config = layer.get_config()
    for setting in channels.settings:
        config[setting.name] = setting.value(config[setting.name], kept[setting.channels])
    return type(layer).from_config(config)


def _copy(layer: Any) -> Any:
    """A layer of the same settings; a model inside of the model with its weights."""
    import keras

    if not isinstance(layer, keras.Layer):
        return layer  # an operation of keras.ops holds nothing
    if isinstance(layer, keras.Model):
        inner = keras.models.clone_model(layer)
        inner.set_weights(layer.get_weights())
        return inner
    return type(layer).from_config(layer.get_config())


def _still_copy(layer: Any) -> Any:
    """A copy that does in a training step what it does in inference, and is not trained."""
    copied = _copy(layer)
    if hasattr(copied, "rate") and hasattr(copied, "seed_generator"):
        copied.rate = 0
    copied.trainable = False
    return copied


def _carry(original: Any, clone: Any, layers: Mapping[str, LayerChannels], kept: Kept) -> None:
    """The weights of `original`, cut where `layers` has axes for them, of the layers that `clone` still has."""
    import keras

    left = {layer.name for layer in clone.layers}
    for layer in original.layers:
        if isinstance(layer, keras.Model) or layer.name not in left:
            continue
        target = clone.get_layer(layer.name)
        axes: Mapping[str, Axes] = layers[layer.name].weights if layer.name in layers else {}
        for source, variable in zip(layer.weights, target.weights, strict=True):
            variable.assign(cut(numbers(source), axes.get(source.name, ()), kept))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _has(values: list[Any], wanted: Any) -> bool:
    return any(value is wanted for value in values)


def _is_rectifier(layer: Any) -> bool:
    """Whether the layer is max(x, 0) and nothing else."""
    if type(layer).__name__ == "ReLU":
        return layer.max_value is None and layer.negative_slope == 0 and layer.threshold == 0
    return type(layer).__name__ == "Activation" and _is_relu(layer.activation)


def _is_relu(function: Any) -> bool:
    import keras

    return function is keras.activations.relu
