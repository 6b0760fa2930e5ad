"""Folds every BatchNormalization into the convolution or dense layer beside it. Exact, or not at all.

What no neighbour can take in, as ReLU stands between (in DenseNet, behind every concatenation), becomes a ReLU with a
limit for each channel, and the convolution behind it takes the rest; in an exported file it is one comparison of
integers. What is left then becomes a depthwise convolution of one tap: one operation of integers with a scale for each
channel, instead of a product and a sum with one for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
class _Change:
    """What is to be done with layers, by their ids. new: what stands in their place, and its weights.

    gone: what passes on what it is given.
    """

    new: Mapping[int, tuple[Any, Sequence[NDArray[Any]]]]
    gone: frozenset[int] = frozenset()


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
    return _changed(model, _folds)


def with_channel_relus(model: keras.Model) -> keras.Model:
    """The same function, BatchNormalization and ReLU before a convolution as ChannelReLU; or the model itself.

    relu(s x + b) = s relu(x + b / s) for a scale s > 0, which the convolution's weights take in. Not where a scale is
    not above 0, or where scales of the channels differ so much that the convolution's integer weights would suffer;
    and not before padding, which would have to be limits where these are kept. Layers that stay as they are are shared
    with the model, which is not changed.
    """
    return _changed(model, _channel_relus)


def with_limits_kept(model: keras.Model) -> keras.Model:
    """The same function, each ChannelReLU with its limit kept and the convolution's bias so much less.

    Layers that stay as they are are shared with the model, which is not changed; it is given back if there are none.
    """
    return _changed(model, _kept_limits)


def with_one_tap(model: keras.Model) -> keras.Model:
    """The same function, what is left of BatchNormalizations of images as DepthwiseConv2D of 1x1; or the model itself.

    Those behind nothing but scalings of the image stay: they may go into its first convolution with these. Layers that
    stay as they are are shared with the model, which is not changed.
    """
    return _changed(model, _single_taps)


def _changed(model: keras.Model, find: Callable[[keras.Model], _Change]) -> keras.Model:
    """The model with what `find` says of it and of the models inside it; itself if that is nothing."""
    import keras

    if not is_functional(model):
        return model
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    change = find(model)
    inner = {id(layer): _changed(layer, find) for layer in model.layers if isinstance(layer, keras.Model)}
    if not change.new and all(inner[id(layer)] is layer for layer in model.layers if id(layer) in inner):
        return model
    others = inner | {number: layer for number, (layer, _) in change.new.items()}
    taking_one = {id(layer) for layer, _ in change.new.values()}

    def called(layer: Any, *inputs: Any, **arguments: Any) -> Any:
        if id(layer) in change.gone:
            return inputs[0]
        # A normalization that is replaced may have been given a mask, too.
        return layer(inputs[0]) if id(layer) in taking_one else layer(*inputs, **arguments)

    clone = keras.models.clone_model(
        model, clone_function=lambda layer: others.get(id(layer), layer), call_function=called, recursive=False
    )
    for layer, weights in change.new.values():
        layer.set_weights([weight.astype(np.float32) for weight in weights])
    return clone


def _again(layer: Any, **settings: Any) -> Any:
    """A layer of the same settings but for these."""
    return type(layer).from_config(layer.get_config() | settings)


def _folds(model: keras.Model) -> _Change:
    plan = _planned(model)
    new = {}
    for layer in model.layers:
        before, behind = plan.before.get(id(layer), IDENTITY), plan.behind.get(id(layer), IDENTITY)
        if before is not IDENTITY or behind is not IDENTITY:
            new[id(layer)] = _again(layer, use_bias=True), _weights(layer, before=before, behind=behind)
    return _Change(new=new, gone=frozenset(plan.gone))


def _channel_relus(model: keras.Model) -> _Change:
    from emb.layers import ChannelReLU

    found = _rectified(model)
    new: dict[int, tuple[Any, Sequence[NDArray[Any]]]] = {}
    for one in found:
        limit = -one.affine.offset / one.affine.scale
        scale = Affine(scale=one.affine.scale, offset=np.zeros(1))
        new[id(one.norm)] = ChannelReLU(name=one.norm.name), [limit.reshape(1, 1, 1, -1)]
        weights = _weights(one.convolution, before=scale, behind=IDENTITY)
        new[id(one.convolution)] = _again(one.convolution, use_bias=True), weights
    return _Change(new=new, gone=frozenset(id(one.relu) for one in found))


def _kept_limits(model: keras.Model) -> _Change:
    from emb.layers import ChannelReLU

    graph = _graph(model)
    new: dict[int, tuple[Any, Sequence[NDArray[Any]]]] = {}
    for call in graph.calls:
        relu, reader = call.operation, graph.next(call)
        if type(relu) is not ChannelReLU or relu.keeps_limit or reader is None:
            continue
        layer = reader.operation
        if _is_unpadded_convolution(layer):
            kept = Affine(scale=np.ones(1), offset=-array(relu.limit).reshape(-1))
            new[id(relu)] = _again(relu, keeps_limit=True), relu.get_weights()
            new[id(layer)] = _again(layer, use_bias=True), _weights(layer, before=kept, behind=IDENTITY)
    return _Change(new=new)


def _single_taps(model: keras.Model) -> _Change:
    from keras import layers

    scalings = _leading(model)
    new: dict[int, tuple[Any, Sequence[NDArray[Any]]]] = {}
    for call in calls_of(model):
        layer = call.operation
        if not _is_batch_norm(layer) or id(layer) in scalings or id(layer) in new:
            continue
        shape = tuple(call.input_tensors[0].shape)
        affine = through(layer, IDENTITY, shape[1:])
        if affine is not None and len(shape) == 4:
            tap = layers.DepthwiseConv2D(1, data_format="channels_last", name=layer.name)
            new[id(layer)] = tap, [affine.scale.reshape(1, 1, -1, 1), affine.offset]
    return _Change(new=new)


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


def _weights(layer: Any, *, before: Affine, behind: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
