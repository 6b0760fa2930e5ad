"""Hands calibration images, and what they are compared with, to the calibration doctor. Judges nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb import data as data_sets
from emb.errors import DataError
from emb.quantize import digest_of_pixels, examine_calibration
from emb.spec.dataset import Dataset, Split

if TYPE_CHECKING:
    from emb.quantize._calibration_findings import CalibrationFinding

# Train images that calibration images are compared with.
TRAIN_IMAGES = 512
_TRAIN_BYTES = 16 * 2**20
_AT_ONCE = 256


def drawn(dataset: Dataset, *, count: int, seed: int) -> tuple[Split, tuple[CalibrationFinding, ...]]:
    """The calibration images of a build, and what the checks that look at pixels alone say of them.

    Raises DataError if train holds fewer images.
    """
    chosen = data_sets.calibration_split(dataset, count=count, seed=seed)
    findings, _ = examine_images(dataset, chosen.images[:], labels=chosen.labels, seed=seed, balanced=True)
    return chosen, findings


def examine_images(
    dataset: Dataset,
    images: NDArray[Any],
    *,
    labels: NDArray[np.int64] | None,
    seed: int,
    balanced: bool,
    with_test: bool = False,
) -> tuple[tuple[CalibrationFinding, ...], NDArray[np.generic] | None]:
    """The findings of all checks that look at pixels, and the images put right; see emb.quantize.examine_calibration.

    balanced: the images were drawn equally from all classes, as the train images are then that they are compared with.
    with_test: look for them in the test split, too, which decodes it all.
    """
    # Fewer of large ones, whose pixels say as much.
    count = max(64, min(TRAIN_IMAGES, _TRAIN_BYTES // int(np.prod(dataset.shape))))
    train = data_sets.sample(dataset.train, count=count, seed=seed + 1, balanced=balanced)
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.labels))
    return examine_calibration(
        images,
        labels=labels,
        train=train.images[:],
        class_shares=counts / counts.sum(),
        classes=dataset.labels,
        test_digests=_digests(dataset.test) if with_test else frozenset(),
    )


def refuse_broken(findings: Sequence[CalibrationFinding]) -> None:
    """Raises DataError with the first of them that is broken."""
    for one in findings:
        if one.severity == "broken":
            raise DataError(f"the calibration images are unfit: {one.what}", why=one.cause, fix=one.remedy)


def notes_of(findings: Sequence[CalibrationFinding]) -> list[str]:
    """A sentence of a report for each."""
    return [f"calibration: {one.what} (emb doctor calibration says more)" for one in findings]


def _digests(test: Split) -> frozenset[bytes]:
    """Of every test image, which nobody looks at otherwise."""
    found: set[bytes] = set()
    for start in range(0, len(test), _AT_ONCE):
        found.update(map(digest_of_pixels, test.images[start : start + _AT_ONCE]))
    return frozenset(found)
