"""Top-1 accuracy and agreement from arrays of scores. Knows neither models nor runtimes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.bench.statistics import wilson
from emb.errors import ModelError
from emb.spec.measurement import Accuracy


def top1(scores: NDArray[Any], labels: NDArray[Any], *, confidence: float = 0.95) -> Accuracy:
    """How often the highest score is that of the label.

    scores: (n, classes) of any real dtype, n at least 1.  labels: (n,) integers in [0, classes).
    Among equal scores the lowest class number wins, as argmax does on every runtime; integer models do tie.
    Raises ModelError if the two do not fit each other or a score is NaN.
    """
    predicted = _predicted(scores)
    if labels.shape != predicted.shape or len(labels) == 0:
        raise ModelError(
            f"{len(predicted)} rows of scores cannot be compared with labels of shape {labels.shape}",
            fix="hand in one row of scores for each labelled image, and at least one image",
        )
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ModelError(
            f"the model gives {scores.shape[1]} scores, the labels run from {labels.min()} to {labels.max()}",
            fix="choose the data set the model was made for",
        )
    correct = int((predicted == labels).sum())
    low, high = wilson(correct, len(labels), confidence)
    return Accuracy(correct=correct, total=len(labels), low=low, high=high, confidence=confidence)


def agreement(scores: NDArray[Any], reference: NDArray[Any]) -> float:
    """The share of rows, in [0, 1], in which both arrays have their highest score in the same class.

    scores, reference: (n, classes) of any real dtype, n at least 1; in each, the lowest of tied classes counts.
    Raises ModelError if their shapes differ or a score is NaN.
    """
    if scores.shape != reference.shape or len(scores) == 0:
        raise ModelError(
            f"scores of shape {scores.shape} cannot be compared with a reference of {reference.shape}",
            fix="run both models on the same images, at least one; both need the same classes",
        )
    return float((_predicted(scores) == _predicted(reference)).mean())


def _predicted(scores: NDArray[Any]) -> NDArray[np.int64]:
    """The class of each row: (n, classes) -> (n,)."""
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ModelError(
            f"scores must have the shape (images, classes), not {scores.shape}",
            fix="use a model with one score for each class",
        )
    if scores.dtype.kind == "f" and np.isnan(scores).any():
        row = int(np.isnan(scores).any(axis=1).argmax())
        raise ModelError(
            f"the model's scores of image {row} are not numbers (NaN)",
            why="the images, or the weights after training, hold NaN or infinite values",
            fix="look at the training's loss, and lower the learning rate if it became NaN",
        )
    predicted: NDArray[np.int64] = scores.argmax(axis=1)
    return predicted
