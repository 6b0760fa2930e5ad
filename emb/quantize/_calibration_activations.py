"""Examines what calibration images do inside a float model, beside validation images. Judges no pixel.

A calibrated range is the smallest to the largest value that a tensor took, with 0: what `minmax` chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emb.graph import flatbuffer as fb
from emb.quantize._calibration_findings import CalibrationFinding, finding
from emb.quantize._tflite_activations import activations
from emb.spec.contract import Pixels

# Share of a tensor's values that may lie outside of its range.
MOST_OUTSIDE = 1e-3
MANY_OUTSIDE = 0.05
# Without the image that made it widest, a range should keep this share of its width.
LEAST_KEPT = 0.5
# Share of a tensor's channels.
MOST_UNSEEN = 0.1
MOST_DEAD = 0.5
_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one tensor took over all images. lowest, highest: (images,), of each image, 0 included.

    constant: (channels,), whether a channel had one value throughout.  outside: share of the values that lie outside
    of the ranges that were given.
    """

    layer: str
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    constant: NDArray[np.bool_]
    outside: float = 0.0


def examine_activations(
    float_path: Path,
    images: NDArray[np.generic],
    validation: NDArray[np.generic],
    *,
    layers: Sequence[str],
    pixels: Pixels,
) -> tuple[CalibrationFinding, ...]:
    """What the ranges would miss. images, validation: (n, height, width, channels) raw pixels, 0..255.

    layers: of every operation of the float .tflite, the layer that it belongs to; "" for what is no layer.
    pixels: how the model's real input follows from a pixel.
    """
    names = _outputs(float_path, layers)
    seen = _seen(float_path, images, names, pixels=pixels)
    ranges = {name: (float(one.lowest.min()), float(one.highest.max())) for name, one in seen.items()}
    held_out = _seen(float_path, validation, names, pixels=pixels, ranges=ranges)
    return (
        *exceeded(held_out, images=len(validation)),
        *single_image(seen),
        *unseen_channels(seen, held_out),
        *dead_channels(seen, held_out),
    )


def exceeded(held_out: Mapping[str, Seen], *, images: int) -> Iterator[CalibrationFinding]:
    """Images that were not calibrated on must stay within the calibrated ranges"""
    worst = sorted(((one.outside, one.layer) for one in held_out.values() if one.outside > MOST_OUTSIDE), reverse=True)
    if worst:
        yield finding(
            exceeded,
            "broken" if worst[0][0] > MANY_OUTSIDE else "remark",
            f"on {images} validation images, values leave the range of {len(worst)} of {len(held_out)} tensors: "
            + _listed([f"{layer} ({100 * share:.2g} %)" for share, layer in worst]),
            cause="too few calibration images, or images of another kind than the validation images",
            remedy="calibrate on more images, drawn from the train images: --calibration 500",
        )


def single_image(seen: Mapping[str, Seen]) -> Iterator[CalibrationFinding]:
    """No single image may decide a range"""
    found: dict[int, list[str]] = {}
    for one in seen.values():
        if len(one.lowest) < 3:
            continue
        width = one.highest.max() - one.lowest.min()
        for image in {int(one.highest.argmax()), int(one.lowest.argmin())}:
            rest = np.delete(one.highest, image).max() - np.delete(one.lowest, image).min()
            if rest < LEAST_KEPT * width:
                found.setdefault(image, []).append(one.layer)
    for image, layers in sorted(found.items()):
        yield finding(
            single_image,
            "remark",
            f"calibration image {image} alone more than doubles the range of {_listed(list(dict.fromkeys(layers)))}",
            cause="an outlier: a damaged image, or one of something else; all others get coarser steps for it",
            remedy=f"look at image {image} (counted from 0) and leave it out, or use "
            "--calibration-method percentile or mse",
        )


def unseen_channels(seen: Mapping[str, Seen], held_out: Mapping[str, Seen]) -> Iterator[CalibrationFinding]:
    """Channels that react to validation images must react to calibration images"""
    parts = []
    for name, one in seen.items():
        unseen = one.constant & ~held_out[name].constant
        if unseen.mean() > MOST_UNSEEN:
            parts.append(f"{one.layer} ({int(unseen.sum())} of {len(unseen)})")
    if parts:
        yield finding(
            unseen_channels,
            "remark",
            f"channels that react to validation images stay still for all calibration images: {_listed(parts)}",
            cause="the calibration images show less than the model was trained for: one class, one scene, no colours",
            remedy="draw the images at random from all train images",
        )


def dead_channels(seen: Mapping[str, Seen], held_out: Mapping[str, Seen]) -> Iterator[CalibrationFinding]:
    """No tensor may stay still in most of its channels, whatever the image

    No fault of the calibration images: the model computes them for nothing.
    """
    parts = []
    for name, one in seen.items():
        dead = one.constant & held_out[name].constant
        if dead.mean() > MOST_DEAD:
            parts.append(f"{one.layer} ({int(dead.sum())} of {len(dead)})")
    if parts:
        yield finding(
            dead_channels,
            "remark",
            f"channels have the same value for every image: {_listed(parts)}",
            cause="units that died in training, mostly behind ReLU by a learning rate that is too high",
            remedy="train again with a lower learning rate or a warm-up, or take a narrower network: it loses nothing",
        )


def _listed(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return ", ".join(parts[:_NAMED]) + more


def _outputs(path: Path, layers: Sequence[str]) -> dict[str, str]:
    """Name of every tensor that an operation of a layer writes -> the layer."""
    model = fb.load(path)
    subgraph = model.subgraphs[0]
    return {
        fb.tensor_name(subgraph.tensors[index]): layer
        for operator, layer in zip(subgraph.operators, layers, strict=True)
        for index in operator.outputs
        if layer and fb.type_name(subgraph.tensors[index]) == "FLOAT32"
    }


def _seen(
    path: Path,
    images: NDArray[np.generic],
    names: Mapping[str, str],
    *,
    pixels: Pixels,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Seen]:
    lows: dict[str, list[float]] = {name: [] for name in names}
    highs: dict[str, list[float]] = {name: [] for name in names}
    channels: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    outside, total = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for values in activations(path, _real(images, pixels), frozenset(names)):
        for name, tensor in values.items():
            flat = tensor.reshape(-1, tensor.shape[-1] if tensor.ndim else 1)
            low, high = flat.min(axis=0), flat.max(axis=0)
            before = channels.get(name, (low, high))
            channels[name] = (np.minimum(before[0], low), np.maximum(before[1], high))
            lows[name].append(min(0.0, float(low.min())))
            highs[name].append(max(0.0, float(high.max())))
            lowest, highest = (ranges or {}).get(name, (-np.inf, np.inf))
            outside[name] += int(np.count_nonzero((tensor < lowest) | (tensor > highest)))
            total[name] += tensor.size
    return {
        name: Seen(
            layer=layer,
            lowest=np.array(lows[name]),
            highest=np.array(highs[name]),
            constant=channels[name][0] == channels[name][1],
            outside=outside[name] / total[name],
        )
        for name, layer in names.items()
    }


def _real(images: NDArray[np.generic], pixels: Pixels) -> NDArray[np.float32]:
    return images.astype(np.float32) * np.float32(pixels.scale) + np.float32(pixels.offset)
