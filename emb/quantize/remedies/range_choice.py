"""Chooses, tensor by tensor, how its range follows from its values: by what it does to the scores. Changes no weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize.remedies.placement import calls_of, function_of, sites_of
from emb.quantize._ranges import Range
from emb.quantize.remedies.simulation import ranges_of, set_ranges, simulated

if TYPE_CHECKING:
    import keras

METHODS = ("minmax", "percentile", "mse")
# A choice that gains less than this share of the error is an accident of the images.
_WORTH = 0.01
_IMAGES = 128


def chosen_ranges(
    model: keras.Model, images: NDArray[np.float32], *, first: str
) -> tuple[dict[str, Range], dict[str, str]]:
    """(ranges, {group of tensors: method} where it is not `first`) of a plain model.

    images: (n, height, width, channels) for calibration.  first: the method that every tensor begins with.
    Greedy, from the image to the scores: of the methods, each tensor takes the one with the least mean squared error
    of the scores before softmax, with the choices made so far.
    """
    candidates = {method: ranges_of(model, images, method=method) for method in METHODS}
    ranges = dict(candidates[first])
    trial = images[:_IMAGES]
    head = before_softmax(model)
    wanted = head.predict_on_batch(trial)
    twin = simulated(model, ranges)
    twin_head = before_softmax(twin)

    def error() -> float:
        return float(np.mean(np.square(twin_head.predict_on_batch(trial) - wanted)))

    least = error()
    choices: dict[str, str] = {}
    for group in _in_order(model, ranges):
        for method in METHODS:
            if candidates[method][group] == ranges[group]:
                continue
            set_ranges(twin, model, {group: candidates[method][group]})
            if (found := error()) < least * (1 - _WORTH):
                least, ranges[group], choices[group] = found, candidates[method][group], method
        set_ranges(twin, model, {group: ranges[group]})
    return ranges, {group: method for group, method in choices.items() if method != first}


def before_softmax(model: keras.Model) -> Any:
    """The model up to what its final softmax takes; the model itself without one."""
    import keras

    last = calls_of(model)[-1]
    if function_of(last.layer) != "softmax" or last.output is not model.outputs[0]:
        return model
    return keras.Model(model.inputs[0], last.inputs[0])


def _in_order(model: keras.Model, ranges: dict[str, Range]) -> list[str]:
    fixed = {site.group for site in sites_of(model) if site.fixed}
    groups = [site.group for site in sites_of(model)]
    products = [name for name in ranges if name not in groups]
    return [name for name in dict.fromkeys((*groups, *products)) if name not in fixed]
