"""Statistics of measurements: intervals, McNemar's test; median and percentile as measurements define them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from statistics import NormalDist

import numpy as np

from emb.spec.measurement import median, percentile

__all__ = ["bootstrap_median", "mcnemar", "median", "percentile", "wilson"]

_RESAMPLES = 10_000


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """(low, high): the Wilson score interval, without continuity correction, of the share correct / total.

    Both ends lie in [0, 1] and enclose the share, also for 0 or `total` correct. confidence: in (0, 1), two-sided.
    Raises ValueError for counts or a confidence out of range.
    Source: Wilson 1927, J. Am. Stat. Assoc. 22; Brown, Cai and DasGupta 2001, section 3.1.1.
    """
    if total < 1 or not 0 <= correct <= total:
        raise ValueError(f"correct must lie in [0, total] and total be at least 1, not {correct} of {total}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # In exact arithmetic the ends enclose the share; rounding may miss it by a last bit at 0 and 1.
    low = min(share, max(0.0, (centre - spread) / scale))
    high = max(share, min(1.0, (centre + spread) / scale))
    return (0.0 if correct == 0 else low), (1.0 if correct == total else high)


def mcnemar(first_alone: int, second_alone: int) -> float:
    """The two-sided exact p-value, in [0, 1], that two classifiers are right equally often on the same images.

    first_alone, second_alone: images that one gets right and the other does not; all others say nothing.
    Raises ValueError for negative counts. Source: McNemar 1947, Psychometrika 12, with the binomial distribution.
    """
    if first_alone < 0 or second_alone < 0:
        raise ValueError(f"counts must not be negative, not {first_alone} and {second_alone}")
    total, fewer = first_alone + second_alone, min(first_alone, second_alone)
    return min(1.0, float(Fraction(2 * sum(math.comb(total, k) for k in range(fewer + 1)), 2**total)))


def bootstrap_median(values: Sequence[float], *, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """(low, high): the percentile bootstrap interval of the median of at least one value; the same for equal values.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13; 10,000 resamples.
    """
    if not len(values):
        raise ValueError("values must hold at least one value")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    drawn = np.random.default_rng(seed).choice(np.asarray(values, float), (_RESAMPLES, len(values)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.median(drawn, axis=1), [tail, 1 - tail])
    return float(low), float(high)
