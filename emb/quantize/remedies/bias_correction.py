"""Bias correction: what quantization adds to a channel's mean is taken off its bias. Changes no weight and no range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize.remedies.placement import has_kernel
from emb.quantize.remedies.simulation import Ranges, simulated
from emb.quantize.remedies.walk import copied, few_enough, walk

if TYPE_CHECKING:
    import keras


def bias_corrected(
    model: keras.Model, images: NDArray[np.float32], ranges: Ranges, *, floats: keras.Model | None = None, bits: int = 8
) -> tuple[keras.Model, dict[str, float]]:
    """(the model with corrected biases, {layer: largest change of a bias}) of a plain model, which stays as it is.

    images: (n, height, width, channels) for calibration.  ranges: of the integer graph.  bits: of the weights.
    floats: the same layers as they should compute; the model itself, unless it has been fitted to its rounding before.
    Layer by layer, each behind corrected ones: bias += E[float output] - E[integer graph's output], per channel over
    images and positions, before any activation.
    Source: Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.2
    and appendix D, empirical.
    """
    images = few_enough(model, images)
    wanted: dict[str, NDArray[np.float64]] = {}

    def remember(layer: Any, x: Any) -> None:
        if has_kernel(layer):
            wanted[layer.name] = _mean(layer(x))

    walk(floats or model, images, remember)
    twin = simulated(model, ranges, bits=bits)
    new = copied(model)
    biases = {layer.name: layer.bias for layer in new.layers if layer.name in wanted}
    changes: dict[str, float] = {}

    def correct(layer: Any, x: Any) -> None:
        if layer.name not in wanted or layer.name in changes:
            return
        change = (wanted[layer.name] - _mean(layer(x))).astype(np.float32)
        layer.bias.assign(layer.bias + change)
        biases[layer.name].assign(layer.bias)
        changes[layer.name] = float(np.abs(change).max())

    walk(twin, images, correct)
    return new, changes


def _mean(outputs: Any) -> NDArray[np.float64]:
    values = np.asarray(outputs, np.float64)
    mean: NDArray[np.float64] = values.reshape(-1, values.shape[-1]).mean(axis=0)
    return mean
