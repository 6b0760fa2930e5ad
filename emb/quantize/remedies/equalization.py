"""Cross-layer equalization: the channels between two layers get equal ranges of weights, and the floats stay equal.

Knows no images and no ranges of activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize.remedies.placement import Call, calls_of, function_of, has_kernel, kind, readers_of
from emb.quantize.remedies.walk import copied

if TYPE_CHECKING:
    import keras

_LARGEST_ROUNDS = 50
_SETTLED = 1e-3
# What f(s * x) = s * f(x) holds for, channel by channel, for every s > 0.
_HOMOGENEOUS = (
    *("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D"),
    *("ZeroPadding2D", "Cropping2D", "Flatten"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Names of a layer and of the only one that reads it, with nothing but homogeneous operations between.

    spread: largest over smallest of the factors that the channels were divided by; 1 where nothing had to change.
    """

    first: str
    second: str
    spread: float = 1.0


def equalized(model: keras.Model) -> tuple[keras.Model, list[Pair]]:
    """(a model of the same function with equalized weights, what changed) of a plain model, which stays as it is.

    For each pair, output channel i of the first layer is divided by s_i and input channel i of the second multiplied,
    s_i = sqrt(r1_i / r2_i), where r is the largest magnitude of the channel's weights; until nothing changes.
    A channel without weights on one side stays. Pairs reach across ReLU, not ReLU6, pooling, padding and flattening.
    Source: Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.1.
    """
    new = copied(model)
    layers = {layer.name: layer for layer in new.layers}
    pairs = pairs_of(new)
    factors = {pair: np.ones(_outputs(layers[pair.first])) for pair in pairs}
    for _ in range(_LARGEST_ROUNDS):
        largest = 1.0
        for pair in pairs:
            factor = _equalize(layers[pair.first], layers[pair.second])
            factors[pair] = factors[pair] * factor
            largest = max(largest, float(np.max(np.maximum(factor, 1 / factor))))
        if largest < 1 + _SETTLED:
            break
    return new, [
        Pair(first=pair.first, second=pair.second, spread=float(factors[pair].max() / factors[pair].min()))
        for pair in pairs
    ]


def pairs_of(model: keras.Model) -> list[Pair]:
    """Which layers of a plain model can be equalized with which, in the order of the calls."""
    calls = calls_of(model)
    readers = readers_of(calls)
    outer = {id(tensor) for tensor in model.outputs}
    times: dict[int, int] = {}
    for call in calls:
        times[id(call.layer)] = times.get(id(call.layer), 0) + 1

    def sole_reader(call: Call) -> Call | None:
        found = readers.get(call.results[0], [])
        alone = len(found) == 1 and len(found[0].sources) == 1 and call.results[0] not in outer
        return found[0] if alone and times[id(found[0].layer)] == 1 else None

    pairs = []
    for call in calls:
        if not has_kernel(call.layer) or times[id(call.layer)] != 1:
            continue
        following = sole_reader(call)
        while following is not None and _is_homogeneous(following.layer):
            following = sole_reader(following)
        if following is not None and has_kernel(following.layer):
            pairs.append(Pair(first=call.name, second=following.name))
    return pairs


def _is_homogeneous(layer: Any) -> bool:
    return kind(layer) in _HOMOGENEOUS or function_of(layer) in ("relu", "linear")


def _equalize(first: Any, second: Any) -> NDArray[np.float64]:
    """Change both layers' weights in place; returns what the channels were divided by."""
    kernel, bias = (np.asarray(weight, np.float64) for weight in first.get_weights())
    next_kernel, next_bias = (np.asarray(weight, np.float64) for weight in second.get_weights())
    r1 = np.abs(_by_output(first, kernel)).max(axis=0)
    spread = _by_input(second, next_kernel, channels=len(r1))
    r2 = np.abs(spread).max(axis=(0, 2))
    usable = (r1 > 0) & (r2 > 0)
    factor = np.where(usable, np.sqrt(np.where(usable, r1, 1.0) / np.where(usable, r2, 1.0)), 1.0)
    kernel = (_by_output(first, kernel) / factor).reshape(kernel.shape)
    next_kernel = _from_input(second, spread * factor[None, :, None], next_kernel.shape)
    first.set_weights([kernel.astype(np.float32), (bias / factor).astype(np.float32)])
    second.set_weights([next_kernel.astype(np.float32), next_bias.astype(np.float32)])
    return factor


def _outputs(layer: Any) -> int:
    return int(layer.bias.shape[0])


def _by_output(layer: Any, kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """(weights of a channel, output channels); a depthwise kernel is (height, width, channels, multiplier)."""
    return kernel.reshape(-1, _outputs(layer))


def _by_input(layer: Any, kernel: NDArray[np.float64], *, channels: int) -> NDArray[np.float64]:
    """(any, input channels, any) of a kernel: what each input channel is multiplied by."""
    if kind(layer) == "Dense":
        # Behind Flatten, the channels repeat at every position.
        return kernel.reshape(-1, channels, kernel.shape[1])
    height, width, inputs, outputs = kernel.shape
    groups = getattr(layer, "groups", 1)
    if groups == 1:
        return kernel.reshape(height * width, inputs, outputs)
    parts = kernel.reshape(height * width, inputs, groups, outputs // groups)
    return parts.transpose(0, 2, 1, 3).reshape(height * width, groups * inputs, outputs // groups)


def _from_input(layer: Any, spread: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The kernel of that shape from what `_by_input` made of it."""
    groups = getattr(layer, "groups", 1)
    if kind(layer) == "Dense" or groups == 1:
        return spread.reshape(shape)
    height, width, inputs, outputs = shape
    parts = spread.reshape(height * width, groups, inputs, outputs // groups)
    return parts.transpose(0, 2, 1, 3).reshape(shape)
