"""How much a network's beginning may shrink an image, from the image's size alone. Knows no architecture.

The classic networks begin by dividing 224 pixels by 4. On 32 pixels that would leave nothing to convolve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Stem = Literal["full", "half", "none"]

_FULL_FROM, _HALF_FROM = 128, 48


def stem_for(input_shape: Sequence[int]) -> Stem:
    """Which beginning suits the images.

    "full": at least 128 pixels, the published beginning.  "half": 48 to 127, one halving (64x64, 96x96).
    "none": smaller ones, no halving before the first block (28x28, 32x32).
    input_shape: (height, width, channels); the shorter side decides.
    """
    side = min(input_shape[:2])
    if side >= _FULL_FROM:
        return "full"
    return "half" if side >= _HALF_FROM else "none"
