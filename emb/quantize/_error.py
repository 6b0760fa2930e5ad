"""How far integers are from the real numbers that they stand for: SQNR, cosine, clipped share. Runs no model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSums:
    """Sums over values x and their approximations y, channel by channel; sums of several images add up.

    signal, given: sums of x * x and y * y, (channels,) float64.  noise: of (x - y) ** 2.  dot: of x * y.
    values: how many there are.  clipped: how many x lie outside of what the integers can stand for.
    """

    signal: NDArray[np.float64]
    given: NDArray[np.float64]
    noise: NDArray[np.float64]
    dot: NDArray[np.float64]
    values: int
    clipped: int

    @staticmethod
    def of(
        real: NDArray[np.float32], given: NDArray[np.float32], *, lowest: float = -math.inf, highest: float = math.inf
    ) -> ErrorSums:
        """real, given: (..., channels) of one shape.  lowest, highest: real numbers of the extreme integers."""
        x = real.reshape(-1, real.shape[-1] if real.ndim else 1).astype(np.float64)
        y = given.reshape(x.shape).astype(np.float64)
        return ErrorSums(
            signal=(x * x).sum(axis=0),
            given=(y * y).sum(axis=0),
            noise=((x - y) ** 2).sum(axis=0),
            dot=(x * y).sum(axis=0),
            values=x.size,
            clipped=int(np.count_nonzero((x < lowest) | (x > highest))),
        )

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(
            signal=self.signal + other.signal,
            given=self.given + other.given,
            noise=self.noise + other.noise,
            dot=self.dot + other.dot,
            values=self.values + other.values,
            clipped=self.clipped + other.clipped,
        )

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise ratio, 10 log10(sum x^2 / sum (x - y)^2): infinite without noise."""
        return decibels(float(self.signal.sum()), float(self.noise.sum()))

    @property
    def channel_sqnr_db(self) -> float:
        """The SQNR of the middle channel, of those that are not 0 throughout; the worse of two in the middle.

        One channel with large values hides in `sqnr_db` what its scale does to all others.
        """
        ratios = sorted(
            decibels(float(signal), float(noise))
            for signal, noise in zip(self.signal, self.noise, strict=True)
            if signal or noise
        )
        return ratios[(len(ratios) - 1) // 2] if ratios else math.inf

    @property
    def cosine(self) -> float:
        """sum x y / sqrt(sum x^2 sum y^2), in [-1, 1]; 1 where both are 0, 0 where one of them is."""
        norms = math.sqrt(float(self.signal.sum())) * math.sqrt(float(self.given.sum()))
        if norms == 0:
            return float(self.signal.sum() == self.given.sum())
        return max(-1.0, min(1.0, float(self.dot.sum()) / norms))

    @property
    def clipped_share(self) -> float:
        """Of the values x, in [0, 1]."""
        return self.clipped / self.values if self.values else 0.0


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise): infinite for no noise, minus infinite for nothing but noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
