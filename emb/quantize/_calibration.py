"""Checks calibration images and turns raw pixels into the model's real input values. Fetches none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emb.errors import DataError
from emb.spec.contract import Pixels
from emb.spec.scheme import Scheme


def checked_images(
    images: NDArray[np.generic] | None, *, scheme: Scheme, shape: tuple[int, ...], pixels: Pixels
) -> NDArray[np.float32]:
    """(n, height, width, channels) float32 of `pixel * scale + offset`.

    shape: (height, width, channels) that the model takes.
    Raises DataError for no images, images of another shape, or values that are not finite.
    """
    if images is None or len(images) == 0:
        raise DataError(
            f"the scheme {scheme.name} needs calibration images",
            why="the ranges of its integers follow from what the model computes on real images",
            fix="ask for at least one with --calibration; 100 to 500 are usual",
        )
    if images.shape[1:] != shape:
        raise DataError(
            f"the calibration images are {by(images.shape[1:])}, the model takes {by(shape)}",
            fix="give images of the model's height, width and channels",
        )
    real = images.astype(np.float32) * np.float32(pixels.scale) + np.float32(pixels.offset)
    if not np.isfinite(real).all():
        raise DataError(
            "a calibration image holds NaN or infinity",
            why="images must be raw pixels, 0..255",
            fix="repair or leave out the image, and check the other images of the data set",
        )
    return real


def by(shape: tuple[int, ...]) -> str:
    """28x28x1"""
    return "x".join(str(size) for size in shape)
