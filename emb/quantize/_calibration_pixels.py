"""Checks of calibration images as pixels: saturated, flat, of one colour, with borders, with their channels mixed up.

Each check is one function over Evidence, whose docstring's first line is what it demands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize._calibration_findings import CalibrationFinding, Evidence, differ, finding
from emb.quantize._calibration_sample import turned

# Points of the share of pixels at one end of the range.
LEAST_SATURATION = 0.1
# Of the train images' band, from which on it is narrow; the band holds all but a thousandth of the values.
NARROW = 0.5
BAND = (0.05, 99.95)
# Of an image's area.
LEAST_BORDER = 0.05
# Of images that are one colour throughout.
MOST_BLANK = 0.05


def saturation(evidence: Evidence) -> Iterator[CalibrationFinding]:
    """No more pixels may lie at 0 or 255 than in the train images"""
    for level, words in ((0, "black"), (255, "white")):
        ours, theirs = (_share(images, level) for images in (evidence.images, evidence.train))
        if ours.mean() > theirs.mean() and differ(ours, theirs, least=LEAST_SATURATION):
            yield finding(
                saturation,
                "remark",
                f"{100 * ours.mean():.0f} % of the pixels are {level} ({words}); "
                f"of the train images {100 * theirs.mean():.0f} %",
                cause="wrong exposure, or an arithmetic that clips: contrast, a conversion that leaves 0..255",
                remedy="correct the exposure, or what was done to the pixels before they were saved",
            )


def narrow_band(evidence: Evidence) -> Iterator[CalibrationFinding]:
    """The images must use as much of 0..255 as the train images do"""
    ours, theirs = _band(evidence.images), _band(evidence.train)
    if ours[1] - ours[0] < NARROW * (theirs[1] - theirs[0]):
        yield finding(
            narrow_band,
            "remark",
            f"the pixels lie between {ours[0]:.0f} and {ours[1]:.0f}; those of the train images between "
            f"{theirs[0]:.0f} and {theirs[1]:.0f}",
            cause="fog, a dark scene, a camera of other contrast, or pixels divided by something",
            remedy="add images of full contrast; the ranges would clip every image that has it",
        )


def constant_channel(evidence: Evidence) -> Iterator[CalibrationFinding]:
    """Every channel must vary, and the three must differ, where they do so in the train images"""
    level = evidence.images[0, 0, 0]
    for channel in np.flatnonzero(_is_still(evidence.moments) & ~_is_still(evidence.train_moments)):
        yield finding(
            constant_channel,
            "broken",
            f"channel {channel} is {float(level[channel]):g} in every pixel of every calibration image",
            cause="a channel that was lost: an alpha channel in its place, a broken sensor, zeros filled in",
            remedy="read the images again in the channels that the model takes: grey or RGB",
        )
    if evidence.images.shape[-1] == 3 and _is_grey(evidence.images) and not _is_grey(evidence.train):
        yield finding(
            constant_channel,
            "remark",
            "the three channels are equal: the calibration images are grey, the train images have colours",
            cause="a grey camera, or images that were converted to grey",
            remedy="give coloured images; what reacts to colours gets no range otherwise",
        )


def blank_images(evidence: Evidence) -> Iterator[CalibrationFinding]:
    """An image must show something: more than one colour"""
    ours, theirs = (_is_blank(images) for images in (evidence.images, evidence.train))
    if ours.mean() > MOST_BLANK and ours.mean() > theirs.mean():
        yield finding(
            blank_images,
            "broken" if ours.all() and not theirs.all() else "remark",
            f"{int(ours.sum())} of {len(ours)} calibration images are of one colour throughout",
            cause="a covered lens, frames from before the camera was ready, or zeros that were never filled",
            remedy="leave them out",
        )


def borders(evidence: Evidence) -> Iterator[CalibrationFinding]:
    """The images must be framed as the train images are: with as much border of one colour"""
    ours, theirs = (_border(images) for images in (evidence.images, evidence.train))
    if not differ(ours, theirs, least=LEAST_BORDER):
        return
    shares = f"{100 * ours.mean():.0f} % of their area; of the train images it is {100 * theirs.mean():.0f} %"
    if ours.mean() > theirs.mean():
        cause = "images that were padded to the model's shape (letterbox) where those of the training were cropped"
    else:
        cause = "images that were cropped or enlarged where those of the training have a margin"
    yield finding(
        borders,
        "remark",
        f"a border of one colour covers {shares}",
        cause=cause,
        remedy="scale them as the training did; emb crops the centre and scales it, and takes folders of any size",
    )


def channel_order(evidence: Evidence) -> Iterator[CalibrationFinding]:
    """The channels must stand in the order red, green, blue

    It can be told only where the train images have clearly more of red than of blue, or less.
    """
    if turned(evidence) != "bgr":
        return
    ours, theirs = (
        float((moments[:, 0, 0] - moments[:, 0, 2]).mean()) for moments in (evidence.moments, evidence.train_moments)
    )
    yield finding(
        channel_order,
        "broken",
        f"the channels stand in the order blue, green, red: red less blue is {ours:+.0f} on average, in the train "
        f"images {theirs:+.0f}",
        cause="OpenCV reads and writes BGR",
        remedy="turn the channels round: image[..., ::-1], or cv2.cvtColor(image, cv2.COLOR_BGR2RGB)",
    )


def planes(evidence: Evidence) -> Iterator[CalibrationFinding]:
    """The three values of a pixel must stand beside one another, not the channels as planes

    Told by how much neighbouring pixels differ: where planes were only given another shape, neighbours are three
    pixels apart, and once the planes are put right they differ as in the train images.
    """
    if evidence.train.shape[-1] != 3:
        return
    count, height, width, channels = evidence.images.shape
    right = np.moveaxis(evidence.images.reshape(count, channels, height, width), 1, -1)
    ours, mended, theirs = map(_roughness, (evidence.images, right, evidence.train))
    if ours.mean() > theirs.mean() and differ(ours, theirs, least=0.0) and not differ(mended, theirs, least=0.0):
        yield finding(
            planes,
            "broken",
            f"neighbouring pixels differ by {ours.mean():.1f} on average, in the train images by {theirs.mean():.1f}: "
            "the channels are planes that were cut into pixels",
            cause="channels first, (3, height, width), that were reshaped to (height, width, 3) instead of transposed",
            remedy="transpose them: np.moveaxis(image, 0, -1)",
        )


def _share(images: NDArray[Any], level: int) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = (images == level).mean(axis=(1, 2, 3))
    return shares


def _is_still(moments: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(channels,): whether each has one value in all images."""
    still: NDArray[np.bool_] = (moments[:, 1] == 0).all(axis=0) & (np.ptp(moments[:, 0], axis=0) == 0)
    return still


def _is_grey(images: NDArray[Any]) -> bool:
    return bool((images == images[..., :1]).all())


def _is_blank(images: NDArray[Any]) -> NDArray[np.bool_]:
    blank: NDArray[np.bool_] = (images == images[:, :1, :1]).all(axis=(1, 2, 3))
    return blank


def _border(images: NDArray[Any]) -> NDArray[np.float64]:
    """Of each image the share of its area that is a border of its upper left pixel's colour; 1 for a blank one."""
    same = (images == images[:, :1, :1]).all(axis=-1)
    inner = []
    for lines in (same.all(axis=2), same.all(axis=1)):
        first, last = np.argmin(lines, axis=1), np.argmin(lines[:, ::-1], axis=1)
        inner.append(np.where(lines.all(axis=1), 0, lines.shape[1] - first - last))
    shares: NDArray[np.float64] = 1 - inner[0] * inner[1] / (images.shape[1] * images.shape[2])
    return shares


def _roughness(images: NDArray[Any]) -> NDArray[np.float64]:
    """Of each image the mean difference of a value and the one to its right."""
    return np.array([np.abs(np.diff(image.astype(np.float32), axis=1)).mean() for image in images], np.float64)


def _band(images: NDArray[Any]) -> tuple[float, float]:
    """Between which all but a thousandth of the values lie, by at most about a million of them."""
    values = images.reshape(-1)
    lowest, highest = np.percentile(values[:: max(1, values.size // 1_000_000) | 1], BAND)
    return float(lowest), float(highest)
