"""What each layer does with channels: which of its outputs are which of its inputs, and along which axes weights go.

One function for each way in which layers treat channels. A layer that stands in no rule is not guessed at. Imports no
keras: layers are known by their class's name and module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from emb.prune._ties import Channels, Ties

Axes = tuple[Channels | None, ...]
"""For each axis of a weight the channels along it, None where it has none (the rows of a kernel)."""


class NoRuleError(Exception):
    """The layer cannot lose channels; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting of a layer that follows from the channels that are left.

    how: "count" is their number, "last" replaces the last one of several numbers by it, "each" is a list with a value
    for each of them, None being their places from 0.
    """

    name: str
    channels: Channels
    how: Literal["count", "last", "each"] = "count"

    def value(self, before: Any, kept: np.ndarray[Any, np.dtype[np.bool_]]) -> Any:
        """What the setting becomes. before: what it is.  kept: for each of `channels` whether it stays."""
        if self.how == "count":
            return int(kept.sum())
        if self.how == "last":
            return (*before[:-1], int(kept.sum()))
        if kept.all():
            return before
        values = range(len(kept)) if before is None else before
        return [value for value, stays in zip(values, kept.tolist(), strict=True) if stays]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a layer. given: of each input.  input_shapes, output_shapes: (batch, ..., channels)."""

    layer: Any
    given: tuple[Channels, ...]
    input_shapes: tuple[tuple[int | None, ...], ...]
    output_shapes: tuple[tuple[int | None, ...], ...]

    @property
    def only(self) -> Channels:
        (channels,) = self.given
        return channels


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a call does. results: the channels of each output.  weights: by the variable's name.

    filters: (name of the weight, axis) whose slices along that axis are the filters that make the channels; None for
    layers that only pass channels on.  makes: its channels are new ones.
    scale: name of the weight that scales each channel of a normalization.
    """

    results: tuple[Channels, ...]
    weights: Mapping[str, Axes] = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    filters: tuple[str, int] | None = None
    makes: bool = False
    scale: str = ""


Rule = Callable[[Call, Ties], Effect]

_ELEMENTWISE = frozenset(
    {
        "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "mish", "sigmoid",
        "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "tanh", "tanh_shrink", "hard_shrink", "soft_shrink",
        "softplus", "softsign", "exponential", "log_sigmoid", "threshold", "squareplus", "sparse_plus",
    }
)  # fmt: skip


def rule_for(layer: Any) -> Rule:
    """The rule of the layer's own class; a subclass may do anything, and has none. Raises NoRuleError."""
    kind = type(layer)
    known = _RULES.get(kind.__name__) if kind.__module__.startswith(("keras.", "emb.layers.")) else None
    if known is None:
        raise NoRuleError(f"emb knows no rule for the channels of a layer of the kind {kind.__name__}")
    if getattr(layer, "data_format", None) == "channels_first":
        raise NoRuleError("its channels come first")
    return known


def _passes(call: Call, _ties: Ties) -> Effect:
    """Each channel for itself."""
    return Effect(results=(call.only,))


def _activation(call: Call, ties: Ties) -> Effect:
    return Effect(results=(_activated(call, ties, call.only),))


def _mixes(call: Call, ties: Ties) -> Effect:
    """What each channel becomes depends on the others."""
    ties.leave_whole(call.only, f"{call.layer.name} weighs them against each other")
    return Effect(results=(call.only,))


def _convolution(call: Call, ties: Ties) -> Effect:
    """Every filter reads all channels of its group."""
    layer, given = call.layer, call.only
    rows = (None,) * len(layer.kernel_size)
    if layer.groups == len(given) > 1:
        return _one_filter_bank_each(call, ties)
    made = _activated(call, ties, ties.new(layer.filters))
    parts = np.split(given, layer.groups)
    ties.tie(*parts)  # groups stay equally wide: the same places go in each
    ties.tie(*np.split(made, layer.groups))
    return Effect(
        results=(made,),
        weights={"kernel": (*rows, parts[0], made), "bias": (made,)},
        settings=(Setting(name="filters", channels=made),),
        filters=("kernel", len(rows) + 1),
        makes=True,
    )


def _one_filter_bank_each(call: Call, ties: Ties) -> Effect:
    """A convolution with as many groups as channels: a depthwise one in another form."""
    layer, given = call.layer, call.only
    results = _activated(call, ties, np.repeat(given, layer.filters // layer.groups))
    rows = (None,) * len(layer.kernel_size)
    return Effect(
        results=(results,),
        weights={"kernel": (*rows, None, results), "bias": (results,)},
        settings=(Setting(name="filters", channels=results), Setting(name="groups", channels=given)),
        filters=("kernel", len(rows) + 1),
    )


def _depthwise(call: Call, ties: Ties) -> Effect:
    """`depth_multiplier` channels from each one, side by side."""
    layer, given = call.layer, call.only
    results = _activated(call, ties, np.repeat(given, layer.depth_multiplier))
    rows = (None,) * len(layer.kernel_size)
    return Effect(
        results=(results,),
        weights={"kernel": (*rows, given, None), "bias": (results,)},
        filters=("kernel", len(rows)),
    )


def _separable(call: Call, ties: Ties) -> Effect:
    layer, given = call.layer, call.only
    made = _activated(call, ties, ties.new(layer.filters))
    rows = (None,) * len(layer.kernel_size)
    return Effect(
        results=(made,),
        weights={
            "depthwise_kernel": (*rows, given, None),
            "pointwise_kernel": (*rows, np.repeat(given, layer.depth_multiplier), made),
            "bias": (made,),
        },
        settings=(Setting(name="filters", channels=made),),
        filters=("pointwise_kernel", len(rows) + 1),
        makes=True,
    )


def _transposed(call: Call, ties: Ties) -> Effect:
    layer, given = call.layer, call.only
    made = _activated(call, ties, ties.new(layer.filters))
    rows = (None,) * len(layer.kernel_size)
    return Effect(
        results=(made,),
        weights={"kernel": (*rows, made, given), "bias": (made,)},
        settings=(Setting(name="filters", channels=made),),
        filters=("kernel", len(rows)),
        makes=True,
    )


def _dense(call: Call, ties: Ties) -> Effect:
    """Every unit reads all values of the last axis."""
    layer = call.layer
    made = _activated(call, ties, ties.new(layer.units))
    return Effect(
        results=(made,),
        weights={"kernel": (call.only, made), "bias": (made,)},
        settings=(Setting(name="units", channels=made),),
        filters=("kernel", 1),
        makes=True,
    )


def _batch_normalization(call: Call, _ties: Ties) -> Effect:
    layer, given = call.layer, call.only
    if not _is_last(layer.axis, call.input_shapes[0]):
        raise NoRuleError("it normalizes another axis than that of the channels")
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return Effect(results=(given,), weights=dict.fromkeys(names, (given,)), scale="gamma" if layer.scale else "")


def _slopes(call: Call, _ties: Ties) -> Effect:
    """PReLU: a slope for each value, or one for all of an axis."""
    given, shape = call.only, call.layer.alpha.shape
    shared = shape[-1] != len(given)
    return Effect(results=(given,), weights={"alpha": (*(None,) * (len(shape) - 1), None if shared else given)})


def _rescaling(call: Call, _ties: Ties) -> Effect:
    """x * scale + offset, of which each is one number or one for each channel."""
    settings = []
    for name in ("scale", "offset"):
        shape = np.shape(getattr(call.layer, name))
        if shape not in ((), (len(call.only),)):
            raise NoRuleError("it scales other axes than that of the channels")
        if shape:
            settings.append(Setting(name=name, channels=call.only, how="each"))
    return Effect(results=(call.only,), settings=tuple(settings))


def _response_normalization(call: Call, _ties: Ties) -> Effect:
    """Each channel by its neighbours, and those that are left remember which ones they were."""
    if call.layer.across == "space":
        return Effect(results=(call.only,))
    return Effect(results=(call.only,), settings=(Setting(name="positions", channels=call.only, how="each"),))


def _merges(call: Call, ties: Ties) -> Effect:
    """A sum or product of equally many channels, place by place; one channel may stand for all."""
    width = max(len(channels) for channels in call.given)
    wide = [channels for channels in call.given if len(channels) == width]
    for channels in call.given:
        if len(channels) != width:
            ties.leave_whole(channels, f"it meets {width} channels in {call.layer.name}")
    ties.tie(*wide)
    return Effect(results=(wide[0],))


def _concatenates(call: Call, ties: Ties) -> Effect:
    if _is_last(call.layer.axis, call.input_shapes[0]):
        return Effect(results=(np.concatenate(call.given),))
    ties.tie(*call.given)
    return Effect(results=(call.given[0],))


def _splits(call: Call, ties: Ties) -> Effect:
    """Equal parts, which stay equal: the same places go in each."""
    parts = np.split(call.only, call.layer.groups)
    ties.tie(*parts)
    return Effect(results=tuple(parts))


def _pads_channels(call: Call, ties: Ties) -> Effect:
    """Channels of zeros behind the others; they go with whatever is added to them."""
    zeros = ties.new(call.layer.channels)
    return Effect(results=(np.concatenate([call.only, zeros]),), settings=(Setting(name="channels", channels=zeros),))


def _flattens(call: Call, _ties: Ties) -> Effect:
    """Each channel becomes one value for each position, positions first."""
    return Effect(results=(_tiled(call),))


def _reshapes(call: Call, _ties: Ties) -> Effect:
    """A Flatten in another form, or one that leaves the last axis what it is."""
    given, shape = call.only, call.output_shapes[0]
    if len(shape) == 2:
        tiled = _tiled(call)
        return Effect(results=(tiled,), settings=(Setting(name="target_shape", channels=tiled, how="last"),))
    if shape[-1] != len(given):
        raise NoRuleError("it mixes channels with positions")
    return Effect(results=(given,), settings=(Setting(name="target_shape", channels=given, how="last"),))


def _tiled(call: Call) -> Channels:
    extents = call.input_shapes[0][1:-1]
    if None in extents:
        raise NoRuleError("the size of its input is open")
    return np.tile(call.only, math.prod(extent or 0 for extent in extents))


def _is_last(axis: Any, shape: tuple[int | None, ...]) -> bool:
    axes = tuple(axis) if isinstance(axis, list | tuple) else (axis,)
    return len(axes) == 1 and axes[0] in (-1, len(shape) - 1)


def _activated(call: Call, ties: Ties, channels: Channels) -> Channels:
    """The same channels. Keras's own functions of one value pass; softmax and whatever is unknown leave them whole."""
    function = call.layer.activation
    name = str(getattr(function, "__name__", type(function).__name__))
    module = str(getattr(function, "__module__", ""))
    if name not in _ELEMENTWISE or not module.startswith("keras."):
        ties.leave_whole(channels, f"the activation {name} of {call.layer.name} may mix them")
    return channels


_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        (
            "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout",
            "ActivityRegularization", "Identity", "ReLU", "LeakyReLU", "ELU", "MaxPooling1D", "MaxPooling2D",
            "AveragePooling1D", "AveragePooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D",
            "GlobalMaxPooling1D", "GlobalMaxPooling2D", "ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D",
            "UpSampling1D", "UpSampling2D", "L2Pooling2D",
        ),
        _passes,
    ),
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"), _merges),
    **dict.fromkeys(("Conv1D", "Conv2D", "GroupedConv2D"), _convolution),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose"), _transposed),
    "Activation": _activation,
    "BatchNormalization": _batch_normalization,
    "ChannelPadding": _pads_channels,
    "ChannelSplit": _splits,
    "Concatenate": _concatenates,
    "Dense": _dense,
    "Flatten": _flattens,
    "LocalResponseNormalization": _response_normalization,
    "PReLU": _slopes,
    "Rescaling": _rescaling,
    "Reshape": _reshapes,
    "Softmax": _mixes,
}  # fmt: skip
