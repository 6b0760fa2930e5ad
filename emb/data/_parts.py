"""From what a file format holds to a checked Dataset: validation split, and the rules every data set obeys."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from emb.data._splits import stratified
from emb.data._streamed import StreamedImages
from emb.errors import DataError
from emb.spec.dataset import DataRequest, Dataset, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a reader hands over. validation: None if the data set has none of its own, and train gives a share.

    notes: see Dataset.
    """

    train: Split
    test: Split
    labels: tuple[str, ...]
    validation: Split | None = None
    notes: tuple[str, ...] = ()


def assemble(name: str, parts: Parts, *, request: DataRequest, digest: str) -> Dataset:
    """The Dataset of `parts`. Raises DataError if a split is empty, shapes differ, or classes are unfit."""
    _check_split(name, "train", parts.train, classes=len(parts.labels))
    train, validation = parts.train, parts.validation
    if validation is None:
        aside = stratified(train.labels, fraction=request.validation_fraction, seed=request.seed)
        train, validation = select(train, ~aside), select(train, aside)
    _check_split(name, "validation", validation, classes=len(parts.labels))
    _check_split(name, "test", parts.test, classes=len(parts.labels))
    shapes = [split.images.shape[1:] for split in (train, validation, parts.test)]
    for one, other in pairwise(shapes):
        if one != other:
            raise DataError(
                f"the splits of {name} have images of different shapes",
                why=f"one has {_text(one)}, another {_text(other)} (height x width x channels)",
                fix="bring all images to one shape",
            )
    _check_classes(name, train=train, labels=parts.labels)
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=parts.test,
        labels=parts.labels,
        digest=digest,
        notes=parts.notes,
    )


def select(split: Split, mask: NDArray[np.bool_]) -> Split:
    """The images of a split for which `mask`, (n,) bool, is true; their order stays. Files stay undecoded."""
    images = split.images.select(mask) if isinstance(split.images, StreamedImages) else split.images[mask]
    return Split(images=images, labels=split.labels[mask])


def _check_split(name: str, part: str, split: Split, *, classes: int) -> None:
    images, labels = split.images, split.labels
    if images.dtype != np.uint8 or len(images.shape) != 4 or images.shape[3] not in (1, 3):
        raise DataError(
            f"the {part} images of {name} are {images.dtype} of shape {_text(images.shape)}",
            fix="give uint8 of (n, height, width, channels) with 1 or 3 channels",
        )
    if len(images) != len(labels):
        raise DataError(f"the {part} split of {name} has {len(images):,} images and {len(labels):,} labels")
    if not len(labels):
        raise DataError(
            f"the {part} split of {name} holds no images",
            fix="add images: train, validation and test need at least one each",
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(
            f"{len(wrong):,} {part} labels of {name} are out of range",
            why=f"label {int(wrong[0])} is {int(labels[wrong[0]])}; the classes are 0 to {classes - 1}",
            fix="correct the labels",
        )


def _check_classes(name: str, *, train: Split, labels: tuple[str, ...]) -> None:
    counts = np.bincount(train.labels, minlength=len(labels))
    if np.count_nonzero(counts) < 2:
        raise DataError(
            f"{name} has one class only: {labels[int(counts.argmax())]!r}",
            why="a classifier needs at least two classes to choose from",
            fix="add images of a second class",
        )
    absent = [label for label, count in zip(labels, counts, strict=True) if not count]
    if absent:
        raise DataError(
            f"{name} has no train images of {', '.join(map(repr, absent))}",
            why="a class that was never trained cannot be recognised",
            fix="add train images of it, or remove the class from labels and test",
        )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
