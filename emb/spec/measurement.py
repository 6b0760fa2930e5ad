"""What was measured of a model, accuracy and memory, and on which machine. Knows no runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Source = Literal["measured"]


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` % of the samples do not exceed (nearest rank; never interpolated).

    samples: not empty, any order.  percent: in (0, 100].  Raises ValueError otherwise.
    """
    if not samples:
        raise ValueError("a percentile needs at least one sample")
    if not 0 < percent <= 100:
        raise ValueError("percent must lie in (0, 100]")
    # One rounding only: percent / 100 first would turn rank 7 of 100 into rank 8.
    rank = math.ceil(percent * len(samples) / 100)
    return sorted(samples)[rank - 1]


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the two middle ones. Raises ValueError for no samples."""
    if not samples:
        raise ValueError("a median needs at least one sample")
    ordered = sorted(samples)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where a number was measured.

    cpu: the model's name as the system gives it.  cores: how many this process may use.
    governor: of the CPU clock, None if it cannot be read.  load_average: runnable tasks over the last minute
    when the description was made, None if it cannot be read; above 0 the measurement had company.
    """

    cpu: str
    architecture: str
    cores: int
    system: str
    kernel: str
    governor: str | None
    load_average: float | None

    @property
    def title(self) -> str:
        """One line for a report."""
        cores = f"{self.cores} core{'' if self.cores == 1 else 's'}"
        return f"{self.cpu} ({cores}, {self.system} {self.architecture})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Top-1: `correct` of `total` images. low, high: the Wilson interval at `confidence`, shares in [0, 1]."""

    correct: int
    total: int
    low: float
    high: float
    confidence: float = 0.95
    source: Source = "measured"

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.total or self.total < 1:
            raise ValueError("correct must lie in [0, total], and total must be at least 1")
        if not 0 <= self.low <= self.correct / self.total <= self.high <= 1:
            raise ValueError("low and high must enclose the accuracy and lie in [0, 1]")

    @property
    def accuracy(self) -> float:
        """The share of correct answers, in [0, 1]."""
        return self.correct / self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a model's answers to labelled images say beyond top-1.

    top5: share of images, in [0, 1], whose label is among the five best; None for five classes or fewer.
    expected_calibration_error: in [0, 1]; how far confidence and accuracy lie apart.
    confusion: (label, predicted class, images) of every pair that occurred, sorted.
    """

    top5: float | None
    expected_calibration_error: float
    confusion: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAccuracy:
    """How one class fared. images: of it.  correct: of these.  low, high: the 95 % Wilson interval of their share.

    answers: how many images, of any class, were taken for it.
    taken_for: (class, images) that its images were most often taken for wrongly; None if they never were.
    """

    label: int
    images: int
    correct: int
    low: float
    high: float
    answers: int
    taken_for: tuple[int, int] | None

    @property
    def recall(self) -> float:
        """The share of its images that were recognised, in [0, 1]."""
        return self.correct / self.images

    @property
    def precision(self) -> float | None:
        """The share of the answers of this class that were right; None if it was never the answer."""
        return self.correct / self.answers if self.answers else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident memory of the process that runs one model, as the kernel counts it.

    peak_bytes: the most so far of the whole process: the Python interpreter, numpy, the runtime's library, the
    model, its tensors and the inputs in flight. It is an upper bound; a C program needs far less.
    before_bytes: resident when the runtime's library was loaded and no model yet.
    """

    peak_bytes: int
    before_bytes: int
    source: Source = "measured"

    @property
    def model_bytes(self) -> int:
        """What opening and running the model added. Contains the pages of the runtime's code touched for it."""
        return max(0, self.peak_bytes - self.before_bytes)
