"""Two model files beside each other: which is faster and which is right more often, or that nobody can tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["faster", "slower", "no difference"]

# Of the same file started twice, where memory comes to lie makes as much.
LEAST_DIFFERENCE = 0.01
CHANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedImage:
    """An image that the two put into different classes. number: in the test split, from 0; the others are classes."""

    number: int
    label: int
    baseline: int
    candidate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyPair:
    """The same test images in both files.

    baseline_alone, candidate_alone: images that only one of the two gets right.  p_value: of McNemar's exact test, that
    they are right equally often.  changed: every image whose class differs.
    """

    images: int
    baseline_correct: int
    candidate_correct: int
    baseline_alone: int
    candidate_alone: int
    p_value: float
    changed: tuple[ChangedImage, ...]

    @property
    def points(self) -> float:
        """What the candidate has more, in points."""
        return 100 * (self.candidate_correct - self.baseline_correct) / self.images

    @property
    def is_chance(self) -> bool:
        """Whether so many images may differ by chance, at 5 %."""
        return self.p_value >= CHANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two files, timed in turn in one run.

    format, scheme, runtime: of both, or "int8 / int8-qat" where they differ.  baseline, candidate: the files.
    baseline_us, candidate_us: medians over all rounds.
    speed: how many times as fast the candidate is, the median over pairs of processes.  low, high: its 95 % bootstrap
    interval.  accuracy: None without test images.
    """

    format: str
    scheme: str
    runtime: str
    baseline: str
    candidate: str
    baseline_us: float
    candidate_us: float
    speed: float
    low: float
    high: float
    threads: int
    accuracy: AccuracyPair | None = None

    @property
    def verdict(self) -> Verdict:
        """A difference of under 1 % is none, whatever the interval says."""
        if self.low <= 1 <= self.high or abs(self.speed - 1) < LEAST_DIFFERENCE:
            return "no difference"
        return "faster" if self.speed > 1 else "slower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What `emb bench BASELINE CANDIDATE --compare` found. images: in words, what accuracy is over.

    notes: what may have disturbed the measurement.
    """

    baseline: str
    candidate: str
    images: str
    machine: str
    pairs: tuple[Pair, ...]
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document of `emb bench --compare --json`."""
        document = asdict(self)
        for pair, table in zip(self.pairs, document["pairs"], strict=True):
            table["verdict"] = pair.verdict
        return document
