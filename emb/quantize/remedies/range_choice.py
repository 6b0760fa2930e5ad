"""Chooses, tensor by tensor, how a range follows from its values, by what it does to the scores. Changes no weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize._ranges import Range
from emb.quantize.remedies.placement import calls_of, function_of, sites_of
from emb.quantize.remedies.simulation import ranges_of, rounding_layers, set_ranges, simulated

if TYPE_CHECKING:
    import keras

METHODS = ("minmax", "percentile", "mse")
# A choice that gains less than this share of the error is an accident of the images.
_WORTH = 0.01
_IMAGES = 128
# Of weights that are to be as good as floats.
_AS_FLOATS = 24


def chosen_ranges(
    model: keras.Model, images: NDArray[np.float32], *, first: str
) -> tuple[dict[str, Range], dict[str, str]]:
    """(ranges, {group of tensors: method} where it is not `first`) of a plain model.

    images: (n, height, width, channels) for calibration.  first: the method that wins where none is better.
    Each tensor is judged alone, with everything else in floats: of the methods it takes the one with the least mean
    squared error of the scores before softmax. Together with others that are still badly rounded, a tensor's error
    would say more of theirs.
    """
    candidates = {method: ranges_of(model, images, method=method) for method in METHODS}
    trial = images[:_IMAGES]
    wanted = before_softmax(model).predict_on_batch(trial)
    twin = simulated(model, candidates[first], bits=_AS_FLOATS)
    head = before_softmax(twin)
    rounding = rounding_layers(twin, model)
    for layers in rounding.values():
        _enable(layers, 0.0)
    ranges, choices = dict(candidates[first]), {}
    fixed = {site.group for site in sites_of(model) if site.fixed}
    for group in (name for name in rounding if name not in fixed):
        _enable(rounding[group], 1.0)
        errors = {}
        for method in METHODS:
            set_ranges(twin, model, {group: candidates[method][group]})
            errors[method] = float(np.mean(np.square(head.predict_on_batch(trial) - wanted)))
        best = min(METHODS, key=lambda method: errors[method])
        if errors[best] < errors[first] * (1 - _WORTH):
            ranges[group], choices[group] = candidates[best][group], best
        _enable(rounding[group], 0.0)
    return ranges, choices


def _enable(layers: list[Any], value: float) -> None:
    for layer in layers:
        layer.enabled.assign(value)


def before_softmax(model: keras.Model) -> Any:
    """The model up to what its final softmax takes; the model itself without one."""
    import keras

    last = calls_of(model)[-1]
    if function_of(last.layer) != "softmax" or last.output is not model.outputs[0]:
        return model
    return keras.Model(model.inputs[0], last.inputs[0])
