"""What scores say of each class, and how far their confidence can be believed. Knows neither models nor runtimes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.bench.statistics import wilson
from emb.spec.measurement import ClassAccuracy, Judgement

TOP = 5
BINS = 15


def judge(scores: NDArray[np.float32], probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> Judgement:
    """Everything but top-1, which has an interval of its own: emb.bench.top1, which also refuses what does not fit.

    scores: (n, classes), as the model gives them.  probabilities: the same, or their `softmax`.
    labels: (n,) integers in [0, classes), n at least 1.
    """
    return Judgement(
        top5=top_share(scores, labels, k=TOP) if scores.shape[1] > TOP else None,
        expected_calibration_error=expected_calibration_error(probabilities, labels),
        confusion=confusion(scores.argmax(axis=1), labels),
    )


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities, row by row: (n, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    rows: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return rows


def top_share(scores: NDArray[Any], labels: NDArray[np.int64], *, k: int) -> float:
    """The share of rows, in [0, 1], whose label has one of the `k` highest scores.

    scores: (n, classes) of any real dtype.  labels: (n,).
    Of equal scores the lower class number ranks first, as it does for argmax; integer models do tie.
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    tied_before = (scores == own) & (np.arange(scores.shape[1]) < labels[:, None])
    ranks = ((scores > own) | tied_before).sum(axis=1)
    return float((ranks < k).mean())


def expected_calibration_error(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], *, bins: int = BINS
) -> float:
    """How far the confidence of the answer is from how often it is right, in [0, 1]; 0 is perfect.

    The mean over images of |accuracy - mean confidence| of the bin that an image's highest probability lies in; bins
    of equal width, each open below and closed above.
    Source: Guo et al. 2017, "On calibration of modern neural networks", section 2 (15 bins in its section 4).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def confusion(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> tuple[tuple[int, int, int], ...]:
    """(label, predicted class, images) of every pair that occurs, in that order. predicted, labels: (n,)."""
    pairs, counts = np.unique(np.stack([labels, predicted], axis=1), axis=0, return_counts=True)
    return tuple((int(label), int(answer), int(count)) for (label, answer), count in zip(pairs, counts, strict=True))


def per_class(confusion: Iterable[tuple[int, int, int]]) -> tuple[ClassAccuracy, ...]:
    """Of every class that has images, by its number. confusion: (label, predicted class, images)."""
    images, answers, correct = Counter[int](), Counter[int](), Counter[int]()
    taken_for: dict[int, tuple[int, int]] = {}
    for label, answer, count in confusion:
        images[label] += count
        answers[answer] += count
        if label == answer:
            correct[label] += count
        elif count > taken_for.get(label, (0, 0))[1]:
            taken_for[label] = (answer, count)
    intervals = {label: wilson(correct[label], images[label]) for label in images}
    return tuple(
        ClassAccuracy(
            label=label,
            images=images[label],
            correct=correct[label],
            low=intervals[label][0],
            high=intervals[label][1],
            answers=answers[label],
            taken_for=taken_for.get(label),
        )
        for label in sorted(images)
    )


def worst_mistakes(probabilities: NDArray[np.float32], labels: NDArray[np.int64], *, most: int) -> NDArray[np.int64]:
    """Numbers of the wrong answers that were given with most confidence, that first: (m,), m at most `most`.

    probabilities: (n, classes).  labels: (n,).  Of equal confidence the earlier image comes first.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    chosen: NDArray[np.int64] = wrong[order[:most]]
    return chosen
