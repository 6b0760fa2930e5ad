"""Top-5, confusion, per-class figures and calibration error: against scikit-learn, by hand, and as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_score, recall_score, top_k_accuracy_score

from emb.bench import judge, per_class, softmax, wilson, worst_mistakes
from emb.bench.classes import confusion, expected_calibration_error, top_share

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, *, images: int = 200, classes: int = 7) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(probabilities, labels) of a model that is right more often than not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size=images)
    logits = rng.normal(size=(images, classes)) + 2.0 * (np.arange(classes) == labels[:, None])
    return softmax(logits.astype(np.float32)), labels


@given(seed=SEEDS, k=st.integers(1, 6))
def test_top_k_is_that_of_scikit_learn(seed: int, k: int) -> None:
    probabilities, labels = drawn(seed)
    expected = top_k_accuracy_score(labels, probabilities, k=k, labels=range(probabilities.shape[1]))
    assert top_share(probabilities, labels, k=k) == pytest.approx(expected)


def test_of_equal_scores_the_lower_class_ranks_first() -> None:
    scores = np.zeros((4, 6), dtype=np.int8)
    labels = np.array([0, 2, 4, 5])
    assert [top_share(scores, labels, k=k) for k in (1, 3, 5, 6)] == [0.25, 0.5, 0.75, 1.0]


@given(seed=SEEDS)
def test_confusion_and_classes_are_those_of_scikit_learn(seed: int) -> None:
    probabilities, labels = drawn(seed, images=40)
    answers = probabilities.argmax(axis=1)
    found = confusion(answers, labels)
    matrix = np.zeros((7, 7), dtype=int)
    for label, answer, count in found:
        matrix[label, answer] = count
    assert (matrix == confusion_matrix(labels, answers, labels=range(7))).all()
    assert all(count > 0 for _, _, count in found)

    classes = per_class(found)
    numbers = [one.label for one in classes]
    assert numbers == sorted(set(labels.tolist()))
    recalls = recall_score(labels, answers, labels=numbers, average=None)
    precisions = precision_score(labels, answers, labels=numbers, average=None, zero_division=np.nan)
    assert [one.recall for one in classes] == pytest.approx(list(recalls))
    assert [np.nan if one.precision is None else one.precision for one in classes] == pytest.approx(
        list(precisions), nan_ok=True
    )
    for one in classes:
        assert (one.low, one.high) == wilson(one.correct, one.images)
        wrong = matrix[one.label].copy()
        wrong[one.label] = 0
        assert (one.taken_for[1] if one.taken_for else 0) == wrong.max()


def test_calibration_error_by_hand() -> None:
    """Two bins of two images: 95 % and 85 % sure, one of two right; 55 % and 65 %, both right; 10 bins apart."""
    confidence = np.array([0.95, 0.85, 0.55, 0.65], dtype=np.float32)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 1, 0, 0])
    # Bins (0.5, 1]: one bin of all four: |3/4 - 0.75| = 0.
    assert expected_calibration_error(probabilities, labels, bins=2) == pytest.approx(0.0, abs=1e-6)
    # Each in a bin of its own: (0.05 + 0.85 + 0.45 + 0.35) / 4.
    assert expected_calibration_error(probabilities, labels, bins=10) == pytest.approx(0.425, abs=1e-6)


@given(seed=SEEDS, bins=st.integers(1, 30))
def test_calibration_error_as_it_is_defined(seed: int, bins: int) -> None:
    probabilities, labels = drawn(seed)
    confidence = probabilities.max(axis=1).astype(float)
    right = probabilities.argmax(axis=1) == labels
    expected = 0.0
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(probabilities, labels, bins=bins) == pytest.approx(expected, abs=1e-9)


def test_confidence_that_comes_true_has_no_error() -> None:
    probabilities = np.full((10, 2), [0.3, 0.7], dtype=np.float32)
    labels = np.array([1] * 7 + [0] * 3)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.0, abs=1e-6)


def test_the_worst_mistakes_come_first() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.99, 0.01], [0.2, 0.8]], dtype=np.float32)
    labels = np.array([1, 1, 0, 0, 0])
    assert worst_mistakes(probabilities, labels, most=2).tolist() == [0, 4]
    assert worst_mistakes(probabilities, labels, most=9).tolist() == [0, 4, 2]
    assert worst_mistakes(probabilities, probabilities.argmax(axis=1), most=9).tolist() == []


def test_five_classes_have_no_top_five() -> None:
    probabilities, labels = drawn(0, classes=5)
    assert judge(probabilities, probabilities, labels).top5 is None
    probabilities, labels = drawn(0, classes=6)
    assert judge(probabilities, probabilities, labels).top5 == top_share(probabilities, labels, k=5)
