"""Statistics of measurements: the Wilson interval; median and percentile as the measurements define them. Pure."""

from __future__ import annotations

import math
from statistics import NormalDist

from emb.spec.measurement import median, percentile

__all__ = ["median", "percentile", "wilson"]


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
