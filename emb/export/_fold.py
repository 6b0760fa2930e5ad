"""Folds a model's leading Rescaling, Normalization or BatchNormalization into its first weights. Exact, or not at all.

Without it the int8 graph would begin with a multiplication of the pixels; with it, with the convolution itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

Call = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """x * scale + offset, element by element; both broadcast to a sample's shape (…, channels)."""

    scale: NDArray[np.float64]
    offset: NDArray[np.float64]

    def then(self, scale: Any, offset: Any) -> Affine:
        """This map followed by another."""
        scale, offset = np.asarray(scale, np.float64), np.asarray(offset, np.float64)
        return Affine(scale=self.scale * scale, offset=self.offset * scale + offset)


IDENTITY = Affine(scale=np.ones(1), offset=np.zeros(1))


def folded(model: keras.Model, before: Affine = IDENTITY) -> Call | None:
    """A function equal to `model(x * before.scale + before.offset, training=False)` that starts with new weights.

    None where nothing is to fold or it cannot be exact: the first weights are no Conv2D, DepthwiseConv2D or Dense;
    zeros are padded onto a moved input; or the input is used twice. The model itself is not changed.
    """
    if not is_functional(model):
        return None
    affine, tensor, is_moved = before, model.inputs[0], before is not IDENTITY
    reshaping: list[Any] = []
    while True:
        node = only_reader(model, tensor)
        if node is None:
            return None
        step = through(node.operation, affine, tensor.shape[1:])
        if step is None:
            break
        if changes_shape(node.operation):
            reshaping.append(node.operation)
        else:
            is_moved = is_moved or step is not affine
        affine, tensor = step, node.output_tensors[0]
    if _is_model(node.operation):
        first = folded(node.operation, affine)
    else:
        first = _with_new_weights(node.operation, affine, tensor.shape) if is_moved else None
    if first is None:
        return None
    return _followed_by_rest(_chain(*reshaping, first), node.output_tensors[0], model)


def _chain(*calls: Call) -> Call:
    def chained(x: Any) -> Any:
        for call in calls:
            x = call(x)
        return x

    return chained


def _followed_by_rest(first: Call, tensor: Any, model: keras.Model) -> Call | None:
    import keras

    if tensor is model.outputs[0]:
        return first
    try:
        rest = keras.Model(tensor, model.outputs[0], name=model.name)
    except ValueError:  # another path leads from the input past this tensor
        return None
    return lambda x: rest(first(x), training=False)


def _is_model(layer: Any) -> bool:
    import keras

    return isinstance(layer, keras.Model)


def is_functional(model: keras.Model) -> bool:
    """Functional or built Sequential: its graph is known."""
    return len(getattr(model, "inputs", None) or []) == 1 and len(getattr(model, "outputs", None) or []) == 1


def only_reader(model: keras.Model, tensor: Any) -> Any:
    """The one call in the model's graph that reads the tensor alone; None otherwise."""
    readers = [node for node in calls_of(model) if any(one is tensor for one in node.input_tensors)]
    return readers[0] if len(readers) == 1 and len(readers[0].input_tensors) == 1 else None


def calls_of(model: keras.Model) -> list[Any]:
    """Every call that the model's output depends on, walked back from it.

    Keras's own record: a layer's public `input` tells its first call only, which for a Sequential that grew layer by
    layer belongs to an earlier graph.
    """
    calls: dict[int, Any] = {}
    waiting = [_call_that_made(model.outputs[0])]
    while waiting:
        call = waiting.pop()
        if id(call) not in calls:
            calls[id(call)] = call
            waiting.extend(_call_that_made(tensor) for tensor in call.input_tensors)
    return list(calls.values())


def _call_that_made(tensor: Any) -> Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def through(layer: Any, affine: Affine, shape: tuple[int, ...]) -> Affine | None:
    """The map behind a layer that is affine per element in inference, or that passes values on; None for others."""
    from keras import layers

    if isinstance(layer, layers.Rescaling):
        return affine.then(layer.scale, layer.offset)
    if type(layer) is layers.Normalization and not layer.invert and layer.mean is not None:
        mean, variance = array(layer.mean), array(layer.variance)
        deviation = np.maximum(np.sqrt(variance), 1e-7)
        channels = shape[-1:] if mean.size > 1 else (1,)
        return affine.then((1 / deviation).reshape(channels), (-mean / deviation).reshape(channels))
    if type(layer) is layers.BatchNormalization and layer.axis in (-1, len(shape)):
        deviation = np.sqrt(array(layer.moving_variance) + layer.epsilon)
        scale = (array(layer.gamma) if layer.scale else 1.0) / deviation
        return affine.then(scale, (array(layer.beta) if layer.center else 0.0) - array(layer.moving_mean) * scale)
    if type(layer) is layers.Flatten and layer.data_format == "channels_last":
        spread = (np.broadcast_to(part, shape).reshape(-1) for part in (affine.scale, affine.offset))
        return Affine(scale=next(spread), offset=next(spread))
    if type(layer) is layers.ZeroPadding2D and not affine.offset.any():
        return affine if affine.scale.ndim == 1 else None
    return affine if is_identity(layer) else None


def changes_shape(layer: Any) -> bool:
    from keras import layers

    return type(layer) in (layers.Flatten, layers.ZeroPadding2D)


def is_identity(layer: Any) -> bool:
    """Whether the layer does nothing in inference: noise, dropout, augmentation."""
    from keras import layers

    kinds = (
        layers.Dropout,
        layers.SpatialDropout2D,
        layers.GaussianNoise,
        layers.GaussianDropout,
        layers.AlphaDropout,
        layers.ActivityRegularization,
        layers.Identity,
    )
    is_own = type(layer).__module__.startswith("keras.")
    return type(layer) in kinds or (is_own and type(layer).__name__.startswith("Random"))


def _with_new_weights(layer: Any, affine: Affine, shape: tuple[int, ...]) -> Call | None:
    weights = moved_input(layer, affine)
    return None if weights is None else _new_layer(layer, shape, *weights)


def moved_input(layer: Any, affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(kernel, what to add to the bias) that give the layer for x what it gave for x * scale + offset.

    None for other layers than Dense, Conv2D and DepthwiseConv2D, or where padded zeros would have to move, too.
    """
    from keras import layers

    if type(layer) is layers.Dense:
        return _dense_weights(array(layer.kernel), affine)
    if not is_convolution(layer) or layer.data_format != "channels_last":
        return None
    if affine.scale.ndim > 1 or affine.offset.ndim > 1:
        return None
    # A 1x1 kernel reads no padding, whatever the layer says.
    pads = layer.padding != "valid" and tuple(layer.kernel_size) != (1, 1)
    if affine.offset.any() and pads:
        return None
    if type(layer) is layers.DepthwiseConv2D:
        return _depthwise_weights(array(layer.kernel), affine)
    return _convolution_weights(array(layer.kernel), affine, groups=layer.groups)


def _dense_weights(kernel: NDArray[np.float64], affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """kernel: (inputs, units)."""
    scale, offset = (np.broadcast_to(part, kernel.shape[:1]) for part in (affine.scale, affine.offset))
    return kernel * scale[:, None], offset @ kernel


def _depthwise_weights(kernel: NDArray[np.float64], affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """kernel: (height, width, channels, multiplier)."""
    scale, offset = (np.broadcast_to(part, kernel.shape[2:3])[:, None] for part in (affine.scale, affine.offset))
    return kernel * scale, (kernel * offset).sum((0, 1)).reshape(-1)


def _convolution_weights(
    kernel: NDArray[np.float64], affine: Affine, *, groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """kernel: (height, width, channels / groups, maps); group g of the maps reads group g of the channels."""
    per_group, maps = kernel.shape[2:]

    def per_weight(part: NDArray[np.float64]) -> NDArray[np.float64]:
        channels = np.broadcast_to(part, (groups * per_group,)).reshape(groups, per_group)
        return np.repeat(channels, maps // groups, axis=0).T

    return kernel * per_weight(affine.scale), (kernel * per_weight(affine.offset)).sum((0, 1, 2))


def is_convolution(layer: Any) -> bool:
    """Whether the layer is exactly one of those whose kernel is known to mean a 2-D convolution, grouped or not."""
    from keras import layers

    from emb.layers import GroupedConv2D

    return type(layer) in (layers.Conv2D, GroupedConv2D, layers.DepthwiseConv2D)


def _new_layer(layer: Any, shape: tuple[int, ...], kernel: NDArray[np.float64], moved: NDArray[np.float64]) -> Call:
    """A copy of the layer with another kernel and with `moved` added to its bias."""
    config = layer.get_config() | {"use_bias": True, "name": layer.name, "dtype": "float32"}
    copy = type(layer).from_config(config)
    copy.build(shape)
    bias = moved + (array(layer.bias) if layer.use_bias else 0.0)
    copy.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
    return copy


def array(value: Any) -> NDArray[np.float64]:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(value), np.float64)
