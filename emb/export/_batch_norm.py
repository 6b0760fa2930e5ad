"""Folds every BatchNormalization into the convolution or dense layer beside it. Exact, or not at all.

What no neighbour can take in, as ReLU stands between (in DenseNet, behind every concatenation), becomes a ReLU with a
limit for each channel, and the convolution behind it takes the rest; in an exported file it is one comparison of
integers. What is left then becomes a depthwise convolution of one tap: one operation of integers with a scale for each
channel, instead of a product and a sum with one for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb.export._fold import (
    IDENTITY,
    Affine,
    array,
    calls_of,
    changes_shape,
    is_convolution,
    is_functional,
    moved_input,
    only_reader,
    through,
)

if TYPE_CHECKING:
    import keras

# How many times the median of a normalization's scales the largest may be if a convolution is to take them in: its
# weights share one step for all input channels, so that two of seven bits may go. No more than that was measured.
LARGEST_SPREAD = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    """Which call reads which tensor; outer: tensors whose values the model returns."""

    calls: list[Any]
    readers: dict[int, list[Any]]
    outer: frozenset[int]

    def next(self, call: Any) -> Any:
        """The one call that reads what this one returns; None if there are several or the model returns it."""
        tensor = call.output_tensors[0]
        readers = self.readers.get(id(tensor), [])
        alone = len(readers) == 1 and len(readers[0].input_tensors) == 1 and id(tensor) not in self.outer
        return readers[0] if alone and self.is_called_once(readers[0].operation) else None

    def is_called_once(self, layer: Any) -> bool:
        return sum(call.operation is layer for call in self.calls) == 1


@dataclass(slots=True, kw_only=True)
class _Plan:
    """What is to be done with layers, by their ids: gone without a trace, or with an affine map before or behind."""

    gone: set[int] = field(default_factory=set)
    before: dict[int, Affine] = field(default_factory=dict)
    behind: dict[int, Affine] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rectified:
    """A BatchNormalization and the ReLU and convolution that alone read it, one behind the other."""

    norm: Any
    relu: Any
    convolution: Any
    affine: Affine


def folded_batch_norms(model: keras.Model) -> keras.Model:
    """The same function, each BatchNormalization in the cheapest form there is for it in integers."""
    return with_one_tap(with_channel_relus(without_batch_norms(model)))


def without_batch_norms(model: keras.Model) -> keras.Model:
    """The same function of the image with fewer layers; the model itself if nothing can be folded.

    Layers that stay as they are are shared with the model, which is not changed.
    """
    import keras

    if not is_functional(model):
        return model
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    plan = _planned(model)
    inner = {id(layer): without_batch_norms(layer) for layer in model.layers if isinstance(layer, keras.Model)}
    if not plan.gone and all(inner[id(layer)] is layer for layer in model.layers if id(layer) in inner):
        return model
    changed: list[tuple[Any, Any]] = []

    def copied(layer: Any) -> Any:
        if id(layer) in inner:
            return inner[id(layer)]
        if id(layer) not in plan.before and id(layer) not in plan.behind:
            return layer
        config = layer.get_config() | {"use_bias": True}
        changed.append((layer, type(layer).from_config(config)))
        return changed[-1][1]

    def called(layer: Any, *inputs: Any, **arguments: Any) -> Any:
        return inputs[0] if id(layer) in plan.gone else layer(*inputs, **arguments)

    clone = keras.models.clone_model(model, clone_function=copied, call_function=called, recursive=False)
    for old, new in changed:
        before, behind = plan.before.get(id(old), IDENTITY), plan.behind.get(id(old), IDENTITY)
        new.set_weights([weight.astype(np.float32) for weight in _weights(old, before=before, behind=behind)])
    return clone


def with_channel_relus(model: keras.Model) -> keras.Model:
    """The same function, BatchNormalization and ReLU before a convolution as ChannelReLU; or the model itself.

    relu(s x + b) = s relu(x + b / s) for a scale s > 0, which the convolution's weights take in. Not where a scale is
    not above 0, or where scales of the channels differ so much that the convolution's integer weights would suffer;
    and not before padding, which would have to be limits where these are kept. Layers that stay as they are are shared
    with the model, which is not changed.
    """
    import keras

    from emb.layers import ChannelReLU

    if not is_functional(model):
        return model
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    found = _rectified(model)
    affines = {id(one.norm): one.affine for one in found}
    gone = {id(one.relu) for one in found}
    scales = {id(one.convolution): Affine(scale=one.affine.scale, offset=np.zeros(1)) for one in found}
    inner = {id(layer): with_channel_relus(layer) for layer in model.layers if isinstance(layer, keras.Model)}
    if not found and all(inner[id(layer)] is layer for layer in model.layers if id(layer) in inner):
        return model
    made: dict[int, Any] = {}

    def copied(layer: Any) -> Any:
        if id(layer) in affines:
            return made.setdefault(id(layer), ChannelReLU(name=layer.name))
        if id(layer) in scales:
            return made.setdefault(id(layer), type(layer).from_config(layer.get_config() | {"use_bias": True}))
        return inner.get(id(layer), layer)

    def called(layer: Any, *inputs: Any, **arguments: Any) -> Any:
        if id(layer) in gone:
            return inputs[0]
        # A normalization takes a mask, too.
        return layer(inputs[0]) if isinstance(layer, ChannelReLU) else layer(*inputs, **arguments)

    clone = keras.models.clone_model(model, clone_function=copied, call_function=called, recursive=False)
    for one in found:
        limit = -one.affine.offset / one.affine.scale
        made[id(one.norm)].set_weights([limit.reshape(1, 1, 1, -1).astype(np.float32)])
        weights = _weights(one.convolution, before=scales[id(one.convolution)], behind=IDENTITY)
        made[id(one.convolution)].set_weights([weight.astype(np.float32) for weight in weights])
    return clone


def with_limits_kept(model: keras.Model) -> keras.Model:
    """The same function, each ChannelReLU with its limit kept and the convolution's bias so much less.

    Layers that stay as they are are shared with the model, which is not changed; it is given back if there are none.
    """
    import keras

    from emb.layers import ChannelReLU

    if not is_functional(model):
        return model
    graph = _graph(model)
    relus = [call for call in graph.calls if type(call.operation) is ChannelReLU and not call.operation.keeps_limit]
    readers = {id(call.operation): graph.next(call) for call in relus}
    behind = {
        id(reader.operation): layer
        for layer, reader in readers.items()
        if reader is not None and _is_unpadded_convolution(reader.operation)
    }
    limits = {id(layer): layer for layer in model.layers if id(layer) in behind.values()}
    inner = {id(layer): with_limits_kept(layer) for layer in model.layers if isinstance(layer, keras.Model)}
    if not limits and all(inner[id(layer)] is layer for layer in model.layers if id(layer) in inner):
        return model
    made: dict[int, Any] = {}

    def copied(layer: Any) -> Any:
        if id(layer) in limits or id(layer) in behind:
            changes = {"keeps_limit": True} if id(layer) in limits else {"use_bias": True}
            return made.setdefault(id(layer), type(layer).from_config(layer.get_config() | changes))
        return inner.get(id(layer), layer)

    clone = keras.models.clone_model(model, clone_function=copied, recursive=False)
    for layer in model.layers:
        if id(layer) in limits:
            made[id(layer)].set_weights(layer.get_weights())
        elif id(layer) in behind:
            limit = array(limits[behind[id(layer)]].limit).reshape(-1)
            weights = _weights(layer, before=Affine(scale=np.ones(1), offset=-limit), behind=IDENTITY)
            made[id(layer)].set_weights([weight.astype(np.float32) for weight in weights])
    return clone


def with_one_tap(model: keras.Model) -> keras.Model:
    """The same function, what is left of BatchNormalizations of images as DepthwiseConv2D of 1x1; or the model itself.

    Those behind nothing but scalings of the image stay: they may go into its first convolution with these. Layers that
    stay as they are are shared with the model, which is not changed.
    """
    import keras

    if not is_functional(model):
        return model
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    scalings = _leading(model)
    found: dict[int, Affine] = {}
    for call in calls_of(model):
        if _is_batch_norm(call.operation) and id(call.operation) not in scalings:
            shape = tuple(call.input_tensors[0].shape)
            affine = through(call.operation, IDENTITY, shape[1:])
            if affine is not None and len(shape) == 4:
                found[id(call.operation)] = affine
    inner = {id(layer): with_one_tap(layer) for layer in model.layers if isinstance(layer, keras.Model)}
    if not found and all(inner[id(layer)] is layer for layer in model.layers if id(layer) in inner):
        return model
    made: dict[int, Any] = {}

    def copied(layer: Any) -> Any:
        if id(layer) in found and id(layer) not in made:
            made[id(layer)] = keras.layers.DepthwiseConv2D(1, data_format="channels_last", name=layer.name)
        return made.get(id(layer), inner.get(id(layer), layer))

    def called(layer: Any, *inputs: Any, **arguments: Any) -> Any:
        # A normalization takes a mask, too.
        return layer(inputs[0]) if layer in made.values() else layer(*inputs, **arguments)

    clone = keras.models.clone_model(model, clone_function=copied, call_function=called, recursive=False)
    for number, layer in made.items():
        affine = found[number]
        layer.set_weights([affine.scale.reshape(1, 1, -1, 1).astype(np.float32), affine.offset.astype(np.float32)])
    return clone


def _rectified(model: keras.Model) -> list[_Rectified]:
    graph, scalings = _graph(model), _leading(model)
    found = []
    for call in graph.calls:
        norm = call.operation
        if not _is_batch_norm(norm) or id(norm) in scalings or not graph.is_called_once(norm):
            continue
        relu = graph.next(call)
        reader = graph.next(relu) if relu is not None and _is_relu(relu.operation) else None
        shape = tuple(call.input_tensors[0].shape)
        affine = through(norm, IDENTITY, shape[1:])
        if reader is None or affine is None or len(shape) != 4 or not _is_unpadded_convolution(reader.operation):
            continue
        is_even = affine.scale.min() > 0 and affine.scale.max() <= LARGEST_SPREAD * np.median(affine.scale)
        # One limit alone is no limit for each channel.
        if is_even and shape[-1] > 1:
            found.append(_Rectified(norm=norm, relu=relu.operation, convolution=reader.operation, affine=affine))
    return found


def _is_unpadded_convolution(layer: Any) -> bool:
    from keras import layers

    is_plain = is_convolution(layer) and type(layer) is not layers.DepthwiseConv2D
    return is_plain and _has_weights(layer) and (layer.padding == "valid" or tuple(layer.kernel_size) == (1, 1))


def _leading(model: keras.Model) -> set[int]:
    """Ids of the layers that do nothing but scale the image, up to the first of another kind."""
    found: set[int] = set()
    tensor = model.inputs[0]
    while (call := only_reader(model, tensor)) is not None:
        if through(call.operation, IDENTITY, tuple(tensor.shape)[1:]) is None:
            break
        found.add(id(call.operation))
        tensor = call.output_tensors[0]
    return found


def _graph(model: keras.Model) -> _Graph:
    calls = calls_of(model)
    readers: dict[int, list[Any]] = {}
    for call in calls:
        for tensor in call.input_tensors:
            readers.setdefault(id(tensor), []).append(call)
    return _Graph(calls=calls, readers=readers, outer=frozenset(id(tensor) for tensor in model.outputs))


def _planned(model: keras.Model) -> _Plan:
    graph, plan = _graph(model), _Plan()
    for call in graph.calls:
        if _has_weights(call.operation) and _is_linear(call.operation) and graph.is_called_once(call.operation):
            _fold_backwards(call, graph, plan)
    for call in graph.calls:
        if _is_batch_norm(call.operation) and id(call.operation) not in plan.gone:
            _fold_forwards(call, graph, plan)
    return plan


def _fold_backwards(call: Any, graph: _Graph, plan: _Plan) -> None:
    """Everything affine behind a layer goes into it."""
    affine, following = IDENTITY, graph.next(call)
    found = []
    while following is not None and not changes_shape(following.operation):
        step = through(following.operation, affine, following.input_tensors[0].shape[1:])
        if step is None or max(step.scale.ndim, step.offset.ndim) > 1:
            break
        if step is not affine:
            found.append(following.operation)
        affine, following = step, graph.next(following)
    if any(_is_batch_norm(layer) for layer in found):
        plan.behind[id(call.operation)] = affine
        plan.gone.update(id(layer) for layer in found)


def _fold_forwards(call: Any, graph: _Graph, plan: _Plan) -> None:
    """A BatchNormalization straight before a layer goes into it, if no zeros are padded onto what it moves."""
    if not graph.is_called_once(call.operation):
        return
    affine = through(call.operation, IDENTITY, call.input_tensors[0].shape[1:])
    following = graph.next(call)
    if affine is None or following is None or id(following.operation) in plan.before:
        return
    layer = following.operation
    if _has_weights(layer) and moved_input(layer, affine) is not None:
        plan.before[id(layer)] = affine
        plan.gone.add(id(call.operation))


def _weights(layer: Any, *, before: Affine, behind: Affine) -> Iterable[NDArray[np.float64]]:
    """(kernel, bias) of the layer with a map of its input before it and one of its output behind it."""
    from keras import layers

    weights = moved_input(layer, before)
    assert weights is not None
    kernel, moved = weights
    bias = moved + (array(layer.bias) if layer.use_bias else 0.0)
    scale = np.broadcast_to(behind.scale, bias.shape)
    if type(layer) is layers.DepthwiseConv2D:
        return kernel * scale.reshape(kernel.shape[2:]), bias * scale + behind.offset
    return kernel * scale, bias * scale + behind.offset


def _has_weights(layer: Any) -> bool:
    from keras import layers

    if type(layer) is layers.Dense:
        return getattr(layer, "quantization_mode", None) is None
    return is_convolution(layer) and layer.data_format == "channels_last"


def _is_linear(layer: Any) -> bool:
    import keras

    return layer.activation is None or layer.activation is keras.activations.linear


def _is_batch_norm(layer: Any) -> bool:
    from keras import layers

    return type(layer) is layers.BatchNormalization


def _is_relu(layer: Any) -> bool:
    import keras
    from keras import layers

    if type(layer) is layers.Activation:
        return layer.activation is keras.activations.relu
    return type(layer) is layers.ReLU and layer.max_value is None and not (layer.negative_slope or layer.threshold)
