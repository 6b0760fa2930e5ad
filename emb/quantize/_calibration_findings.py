"""What a check of calibration images may say, what it is told, and when two sets of images differ. Checks nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Means further apart than so many standard errors: once in 1.7 million times by chance (normal, both sides), and a
# dozen checks make it once in 100,000.
STANDARD_ERRORS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFinding:
    """check: the name of the function that found it.  severity: "broken" spoils the int8 model, "remark" may.

    what: one sentence with the figures.  cause: where it usually comes from.  remedy: what to do now.
    """

    check: str
    severity: Literal["broken", "remark"]
    what: str
    cause: str
    remedy: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the checks look at: pixels in 0..255.

    images: (n, height, width, channels), the calibration images.  labels: (n,) their classes, None if nobody knows.
    train: (m, height, width, channels) uint8, some train images, drawn as the calibration images should have been.
    class_shares: (classes,) of all train images, sums to 1.  classes: their names.
    test_digests: of the pixels of every test image, see `digest_of_pixels`; empty if leakage is not looked for.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64] | None
    train: NDArray[np.uint8]
    class_shares: NDArray[np.float64]
    classes: tuple[str, ...]
    test_digests: frozenset[bytes] = frozenset()

    @cached_property
    def moments(self) -> NDArray[np.float64]:
        """Mean and standard deviation of every channel of every calibration image: (n, 2, channels)."""
        return _moments(self.images)

    @cached_property
    def train_moments(self) -> NDArray[np.float64]:
        """The same of the train images: (m, 2, channels)."""
        return _moments(self.train)


Check = Callable[[Evidence], Iterator[CalibrationFinding]]


def finding(
    check: Callable[..., Any], severity: Literal["broken", "remark"], what: str, *, cause: str, remedy: str
) -> CalibrationFinding:
    """A finding that bears the check's name."""
    return CalibrationFinding(
        check=check.__name__.replace("_", "-"), severity=severity, what=what, cause=cause, remedy=remedy
    )


def differ(ours: NDArray[Any], theirs: NDArray[Any], *, least: float) -> bool:
    """Whether the means of two samples, one number an image, differ by `least` or more, and not by chance.

    Welch 1947: the difference over its standard error, both variances estimated; a single number borrows the other
    sample's. Both must hold: with many images the smallest difference is no chance, and does not matter.
    """
    gap = abs(float(ours.mean()) - float(theirs.mean()))
    variances = [float(sample.var(ddof=1)) if len(sample) > 1 else None for sample in (ours, theirs)]
    known = [variance for variance in variances if variance is not None]
    if not known:
        return False
    squares = [
        (known[0] if variance is None else variance) / len(sample)
        for variance, sample in zip(variances, (ours, theirs), strict=True)
    ]
    return gap >= least and gap > STANDARD_ERRORS * sum(squares) ** 0.5


def _moments(images: NDArray[Any]) -> NDArray[np.float64]:
    rows = []
    for image in images:
        # One channel behind the other, along which numpy sums fast.
        values = np.ascontiguousarray(image.reshape(-1, image.shape[-1]).T, dtype=np.float32)
        rows.append((values.mean(axis=1), values.std(axis=1)))
    return np.array(rows, np.float64)
