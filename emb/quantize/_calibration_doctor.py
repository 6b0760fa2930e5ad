"""Examines calibration images before anything is converted: first their shape and numbers, then all that they show.

Fetches no image and runs no model. Images in a range that can be told (0..1, -1..1) or with their channels first are
put right for the checks that follow, so that one examination says all that is wrong.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import DataError
from emb.quantize._calibration import by
from emb.quantize._calibration_findings import CalibrationFinding, Check, Evidence, finding
from emb.quantize._calibration_pixels import (
    blank_images,
    borders,
    channel_order,
    constant_channel,
    narrow_band,
    planes,
    saturation,
)
from emb.quantize._calibration_sample import class_coverage, distribution, identical, leakage, too_few

CHECKS: tuple[Check, ...] = (
    *(too_few, identical, class_coverage, leakage),
    *(distribution, narrow_band, saturation, constant_channel, blank_images, borders, channel_order, planes),
)
_AS_IN_A_BUILD = "emb takes raw pixels and scales them itself, as input.pixels of the recipe says"


def examine(evidence: Evidence) -> tuple[tuple[CalibrationFinding, ...], NDArray[Any] | None]:
    """All findings, what is broken first, none for images that are fit; and the images put right, 0..255.

    They are None if nobody can tell what they should be. Raises DataError for images of another height, width or
    number of channels, and for none at all.
    """
    images, found = layout(evidence.images, shape=evidence.train.shape[1:])
    pixels, wrong = pixel_range(images, train=evidence.train)
    found += wrong
    if pixels is not None:
        mended = replace(evidence, images=pixels)
        same = [one for one in identical(mended) if one.severity == "broken"]
        # Of one image, nothing else can be said.
        found += same or [one for check in CHECKS for one in check(mended)]
    return tuple(sorted(found, key=lambda one: one.severity != "broken")), pixels


def layout(images: NDArray[Any], *, shape: tuple[int, ...]) -> tuple[NDArray[Any], list[CalibrationFinding]]:
    """The images must have their channels last: (height, width, channels)"""
    height, width, channels = shape
    if not len(images):
        raise DataError("there are no calibration images", fix="give at least one; 200 are usual")
    if images.shape[1:] == (height, width) and channels == 1:
        images = images[..., np.newaxis]
    if images.shape[1:] == shape:
        return images, []
    if images.shape[1:] == (channels, height, width):
        return np.moveaxis(images, 1, -1), [
            finding(
                layout,
                "broken",
                f"the images are {by(images.shape[1:])}, channels first; the model takes {by(shape)}",
                cause="PyTorch, ONNX and many loaders have channels first",
                remedy="move them: np.moveaxis(images, 1, -1)",
            )
        ]
    raise DataError(
        f"the calibration images are {by(images.shape[1:])}, the model takes {by(shape)}",
        fix="give images of the model's height, width and channels",
    )


def pixel_range(
    images: NDArray[Any], *, train: NDArray[np.uint8]
) -> tuple[NDArray[Any] | None, list[CalibrationFinding]]:
    """The pixels must be raw: numbers from 0 to 255

    Returns None for images whose numbers cannot be put right.
    """
    if images.dtype.kind not in "uifb":
        raise DataError(f"the calibration images are of type {images.dtype}", fix="save pixels as uint8, 0 to 255")
    if not np.isfinite(images).all():
        return None, [
            _out_of_range(
                "values that are not finite",
                cause="a division by zero, or memory that was never filled",
                remedy="find out which image they come from, and leave it out",
            )
        ]
    lowest, highest = float(images.min()), float(images.max())
    between = f"values from {lowest:.4g} to {highest:.4g}"
    if (lowest >= 0 and 1 < highest <= 255) or int(train.max()) <= 1:
        return images, []
    if lowest >= 0 and highest <= 1:
        remedy = f"give raw pixels: np.rint(images * 255).astype(np.uint8); {_AS_IN_A_BUILD}"
        wrong = _out_of_range(between, cause="pixels that were divided by 255", remedy=remedy)
        return images * np.float32(255), [wrong] if highest > 0 else []
    if lowest >= -1.01 and highest <= 1.01:
        remedy = f"give raw pixels: np.rint((images + 1) * 127.5).astype(np.uint8); {_AS_IN_A_BUILD}"
        wrong = _out_of_range(between, cause="pixels that were scaled to -1..1", remedy=remedy)
        return (images + np.float32(1)) * np.float32(127.5), [wrong]
    if lowest < 0:
        cause = "pixels from which a mean was subtracted, or that were divided by a deviation"
        return None, [_out_of_range(between, cause=cause, remedy=f"give raw pixels, 0 to 255; {_AS_IN_A_BUILD}")]
    cause = "images of more than 8 bits a channel"
    remedy = "bring them to 8 bits: of 16, (images / 257).astype(np.uint8)"
    return None, [_out_of_range(between, cause=cause, remedy=remedy)]


def _out_of_range(values: str, *, cause: str, remedy: str) -> CalibrationFinding:
    what = f"the images hold {values}; the model takes pixels from 0 to 255"
    return finding(pixel_range, "broken", what, cause=cause, remedy=remedy)
