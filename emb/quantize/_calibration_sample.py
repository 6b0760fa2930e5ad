"""Checks of calibration images as a sample: how many, of which classes, like the train images or not.

Each check is one function over Evidence, whose docstring's first line is what it demands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emb.quantize._calibration_findings import CalibrationFinding, Evidence, differ, finding

# A new image may exceed a tensor's calibrated range with this probability, both ends together.
MOST_EXCEEDING = 0.02
# Share of images that others repeat, from which on it is said.
MOST_REPEATED = 0.05
# Of 255: what a sixteenth of the range is, and a quarter.
LEAST_LEVELS = 16.0
MANY_LEVELS = 64.0
# Chance of a random draw that is taken for none.
LEAST_LIKELY = 1e-4
# Share of calibration images that are test images, from which on the accuracy means nothing.
MOST_LEAKED = 0.05


def digest_of_pixels(image: NDArray[Any]) -> bytes:
    """Of one image's shape and pixels as uint8: equal for equal pixels, whatever file or type they came in."""
    rounded = image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255)
    pixels = np.ascontiguousarray(rounded, dtype=np.uint8)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def too_few(evidence: Evidence) -> Iterator[CalibrationFinding]:
    """There must be so many different images that a new one rarely leaves the calibrated ranges

    Of n + 1 images in random order, the last is the largest of a tensor with probability 1 / (n + 1), and the
    smallest with the same: that holds for any distribution. So one in 2 / (n + 1) new images leaves the range.
    """
    count = len({digest_of_pixels(image) for image in evidence.images})
    share = 2 / (count + 1)
    if share <= MOST_EXCEEDING:
        return
    needed = int(np.ceil(2 / MOST_EXCEEDING)) - 1
    yield finding(
        too_few,
        "remark",
        f"there {'is' if count == 1 else 'are'} {count} different calibration image{'' if count == 1 else 's'}; "
        f"about {min(100.0, 100 * share):.0f} % of new images will leave a tensor's range and be clipped",
        cause="the range of every tensor is the largest value seen, and the next image may have a larger one: of n "
        "images with a probability of 2 / (n + 1), whatever the images are",
        remedy=f"give {needed} or more: --calibration {max(200, needed)}",
    )


def identical(evidence: Evidence) -> Iterator[CalibrationFinding]:
    """The images must differ from each other"""
    total = len(evidence.images)
    count = len({digest_of_pixels(image) for image in evidence.images})
    repeated = total - count
    if repeated <= MOST_REPEATED * total:
        return
    cause = "a loop that reads the same file again, a video of a scene that stands still, or copies in the folder"
    if count == 1:
        what, severity = f"all {total} calibration images are the same", "broken"
    else:
        what, severity = f"{repeated} of {total} calibration images repeat another one", "remark"
    yield finding(
        identical,
        "broken" if severity == "broken" else "remark",
        what,
        cause=cause,
        remedy="give different images, drawn at random from the train images",
    )


def class_coverage(evidence: Evidence) -> Iterator[CalibrationFinding]:
    """As many classes must be among the images as a random draw of train images would hold

    Of n draws, a class of share p is missing with probability (1 - p)^n, and L = sum((1 - p)^n) classes are missing on
    average. By Chernoff's bound, which holds as the classes hinder each other, m or more are missing with a probability
    of at most exp(m - L) (L / m)^m.
    """
    if evidence.labels is None:
        return
    expected = float(((1 - evidence.class_shares) ** len(evidence.labels)).sum())
    there = np.bincount(evidence.labels, minlength=len(evidence.classes)) > 0
    absent = [name for name, is_there in zip(evidence.classes, there, strict=True) if not is_there]
    count = len(absent)
    if count <= expected or count - expected + count * np.log(max(expected, 1e-300) / count) > np.log(LEAST_LIKELY):
        return
    named = ", ".join(map(repr, absent[:8])) + (f" and {len(absent) - 8} more" if len(absent) > 8 else "")
    yield finding(
        class_coverage,
        "remark",
        f"{len(absent)} of {len(evidence.classes)} classes have no calibration image: {named}",
        cause="the first images of a sorted folder, or images of one place; what only these classes activate gets a "
        "range that is too small",
        remedy="draw the images at random from all classes; emb build takes equally many of each",
    )


def distribution(evidence: Evidence) -> Iterator[CalibrationFinding]:
    """Mean and contrast of every channel must be those of the train images

    One number an image, compared by Welch's test (`differ`); less than a sixteenth of the range does not matter.
    """
    if (turned_round := turned(evidence)) == "inverted":
        yield finding(
            distribution,
            "broken",
            "the calibration images are inverted: their mean is "
            f"{evidence.images.mean():.0f}, that of the train images {evidence.train.mean():.0f}",
            cause="dark on bright where the model learned bright on dark",
            remedy="invert them: 255 - pixel",
        )
    if turned_round:
        return
    ours, theirs = evidence.moments, evidence.train_moments
    for place, measure in enumerate(("mean", "standard deviation")):
        pairs = [(ours[:, place, channel], theirs[:, place, channel]) for channel in range(ours.shape[2])]
        if not any(differ(one, other, least=LEAST_LEVELS) for one, other in pairs):
            continue
        gap = max(abs(float(one.mean() - other.mean())) for one, other in pairs)
        what = "the pixels" if len(pairs) == 1 else "red, green and blue"
        yield finding(
            distribution,
            "broken" if gap >= MANY_LEVELS else "remark",
            f"the {measure} of {what} is {_levels(one for one, _ in pairs)}; "
            f"of the train images {_levels(other for _, other in pairs)}",
            cause="other light, another camera, another scaling of the pixels, or images of something else",
            remedy="take images as the model saw them in training and will see them on the board; if these are "
            "right, the model has to be trained on such images",
        )


def leakage(evidence: Evidence) -> Iterator[CalibrationFinding]:
    """No calibration image may be one of the test split, which is for the last number only

    Compared by the pixels' sha256; no test image is run.
    """
    leaked = sum(digest_of_pixels(image) in evidence.test_digests for image in evidence.images)
    if not leaked:
        return
    total = len(evidence.images)
    many = leaked > MOST_LEAKED * total
    yield finding(
        leakage,
        "broken" if many else "remark",
        f"{leaked} of {total} calibration images {'is' if leaked == 1 else 'are'} in the test split",
        cause="the images were taken from the test split, and the accuracy measured on it is too good to be true"
        if many
        else "the data set holds an image twice, once in each split",
        remedy="draw calibration images from the train split, as emb build does"
        if many
        else "remove the copies from one of the splits",
    )


def turned(evidence: Evidence) -> Literal["", "inverted", "bgr"]:
    """Whether the images fit the train images only once they are inverted, or have their channels turned round.

    In colour it is told by the mean difference of red and blue, whose sign both change, and then by the mean; in grey
    by a mean that is far from the train images', and fits them inverted.
    """
    ours, theirs = evidence.moments[:, 0], evidence.train_moments[:, 0]
    mean, wanted = ours.mean(axis=1), theirs.mean(axis=1)
    fits_inverted = not differ(255 - mean, wanted, least=LEAST_LEVELS)
    if ours.shape[1] == 1:
        return "inverted" if differ(mean, wanted, least=MANY_LEVELS) and fits_inverted else ""
    balance, wanted_balance = ours[:, 0] - ours[:, 2], theirs[:, 0] - theirs[:, 2]
    flipped = differ(balance, wanted_balance, least=0.0) and not differ(-balance, wanted_balance, least=0.0)
    # Of a balance that is 0 for all anybody knows, the opposite fits as well.
    if not flipped or not differ(wanted_balance, np.zeros(len(wanted_balance)), least=0.0):
        return ""
    return "inverted" if differ(mean, wanted, least=0.0) and not differ(255 - mean, wanted, least=0.0) else "bgr"


def _levels(samples: Iterable[NDArray[Any]]) -> str:
    return ", ".join(f"{float(sample.mean()):.0f}" for sample in samples)
