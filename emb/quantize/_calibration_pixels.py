"""Checks of calibration images as pixels: saturated, flat, of one colour, with borders, with their channels mixed up.

Each check is one function over Evidence, whose docstring's first line is what it demands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize._calibration_findings import STANDARD_ERRORS, CalibrationFinding, Evidence, differ, finding

# Points of the share of pixels at one end of the range.
LEAST_SATURATION = 0.1
# Of the train images' band, from which on it is narrow; the band holds all but a thousandth of the values.
NARROW = 0.5
BAND = (0.05, 99.95)
# Of an image's area.
LEAST_BORDER = 0.05
# Of images that are one colour throughout.
MOST_BLANK = 0.05
# Of a correlation between channels.
LEAST_CORRELATION = 0.3


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
    ours, theirs = (np.percentile(images, BAND) for images in (evidence.images, evidence.train))
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
    lowest, highest = (extreme(evidence.images, axis=(0, 1, 2)) for extreme in (np.min, np.max))
    varies = np.ptp(evidence.train, axis=(0, 1, 2)) > 0
    for channel in np.flatnonzero((lowest == highest) & varies):
        yield finding(
            constant_channel,
            "broken",
            f"channel {channel} is {float(lowest[channel]):g} in every pixel of every calibration image",
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

    Told by the mean difference of red and blue: it has the other sign in BGR. It can be told only if the train
    images' own difference is clear, and is said only if the calibration images fit its opposite and not it.
    """
    if evidence.train.shape[-1] != 3:
        return
    ours, theirs = (
        images[..., 0].astype(np.float64).mean(axis=(1, 2)) - images[..., 2].astype(np.float64).mean(axis=(1, 2))
        for images in (evidence.images, evidence.train)
    )
    can_be_told = abs(theirs.mean()) > STANDARD_ERRORS * theirs.std() / len(theirs) ** 0.5
    if can_be_told and differ(ours, theirs, least=0.0) and not differ(-ours, theirs, least=0.0):
        yield finding(
            channel_order,
            "broken",
            f"the channels stand in the order blue, green, red: red is on average {ours.mean():+.0f} against blue, "
            f"in the train images {theirs.mean():+.0f}",
            cause="OpenCV reads and writes BGR",
            remedy="turn the channels round: image[..., ::-1], or cv2.cvtColor(image, cv2.COLOR_BGR2RGB)",
        )


def planes(evidence: Evidence) -> Iterator[CalibrationFinding]:
    """The three values of a pixel must stand beside one another, not the channels as planes

    Told by the correlation of the first channel with the last: where planes were only given another shape, it is
    that of distant pixels, and it becomes the train images' when the planes are put right.
    """
    if evidence.train.shape[-1] != 3:
        return
    count, height, width, channels = evidence.images.shape
    right = evidence.images.reshape(count, channels, height, width).transpose(0, 2, 3, 1)
    ours, mended, theirs = map(_correlation, (evidence.images, right, evidence.train))
    if theirs - ours > LEAST_CORRELATION and mended - ours > LEAST_CORRELATION and abs(mended - theirs) < 0.15:
        yield finding(
            planes,
            "broken",
            f"the channels do not belong together: red and blue correlate by {ours:.2f}, in the train images by "
            f"{theirs:.2f}",
            cause="channels first, (3, height, width), that were reshaped to (height, width, 3) instead of transposed",
            remedy="transpose them: np.moveaxis(image, 0, -1)",
        )


def _share(images: NDArray[Any], level: int) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = (images == level).mean(axis=(1, 2, 3))
    return shares


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


def _correlation(images: NDArray[Any]) -> float:
    first, last = (images[..., channel].astype(np.float64).ravel() for channel in (0, 2))
    deviations = first.std() * last.std()
    return float(((first - first.mean()) * (last - last.mean())).mean() / deviations) if deviations else 0.0
