"""Chooses the range of real numbers that a tensor's integers stand for. Knows neither TFLite nor ONNX.

One definition for both formats. Ranges always hold 0, as zero padding and ReLU need it to be exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emb.errors import DataError, ModelError
from emb.spec.contract import Pixels

# Share of a tensor's values that "percentile" keeps, over all calibration images: 1 in 10,000 is cut off, half of
# them at each end.
KEPT = 0.9999
BINS = 2048
# "mse" tries this many ranges, the narrowest of which is NARROWEST times the widest.
CANDIDATES = 80
NARROWEST = 0.2
# Narrower than this, a scale would underflow to 0 in float32 products of two scales.
SMALLEST_WIDTH = 1e-6

Activations = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """lowest <= 0 <= highest, real numbers; lowest < highest."""

    lowest: float
    highest: float

    def __post_init__(self) -> None:
        if not self.lowest <= 0 <= self.highest or not self.lowest < self.highest:
            raise ValueError(f"a range must hold 0 and have a width, not [{self.lowest}, {self.highest}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputCode:
    """real = (stored - zero_point) * scale, chosen so that pixel 0..255 becomes a stored integer in one step."""

    scale: float
    zero_point: int

    def range(self, *, lowest: int, highest: int) -> Range:
        """The real numbers that the stored integers `lowest` and `highest` stand for."""
        return Range(lowest=(lowest - self.zero_point) * self.scale, highest=(highest - self.zero_point) * self.scale)


def input_code(pixels: Pixels, *, lowest: int) -> InputCode:
    """8-bit code of the input, where pixel 0 is stored as `lowest` (-128 for int8, 0 for uint8).

    stored = pixel + lowest always. The zero point must be an integer: for pixels -1..1, where the real 0 lies
    between the pixels 127 and 128, it is that of 128, and every pixel is read half a grey level too low.
    """
    zero_pixel = int(np.floor(-pixels.offset / pixels.scale + 0.5))
    if not 0 <= zero_pixel <= 255:
        raise DataError(
            f"pixels scaled by {pixels.scale:g} and moved by {pixels.offset:g} cannot be an integer input",
            why="the real number 0 is not among them, and an integer tensor must hold it",
            fix="put the scaling into the model as its first layer",
        )
    return InputCode(scale=pixels.scale, zero_point=zero_pixel + lowest)


def input_code_16(pixels: Pixels) -> InputCode:
    """16-bit code of the input, zero point 0 as TFLite demands.

    stored = pixel for raw and 0..1 pixels, 2 * pixel - 255 for -1..1, which is exact.
    """
    steps = -pixels.offset / pixels.scale
    for fraction in (1, 2):
        if abs(steps * fraction - round(steps * fraction)) < 1e-6:
            return InputCode(scale=pixels.scale / fraction, zero_point=0)
    widest = max(abs(pixels.offset), abs(255 * pixels.scale + pixels.offset))
    return InputCode(scale=widest / 32767, zero_point=0)


def calibrate(
    run: Callable[[], Iterator[Activations]], *, method: str, levels: int, symmetric: bool = False
) -> dict[str, Range]:
    """The range of every tensor from the activations of all calibration images.

    run: yields {tensor name: values} per image, float32 of any shape; called once for minmax, twice otherwise.
    levels: how many integers there are, 256 or 65,536.  symmetric: the integers' zero point is fixed at 0.
    Raises ModelError naming a tensor with values that are not finite.
    """
    widest = _widest(run())
    if method == "minmax":
        return {name: _range(lowest, highest) for name, (lowest, highest) in widest.items()}
    choose = {"percentile": _percentile, "mse": _least_error}[method]
    counts = {name: np.zeros(BINS, np.int64) for name in widest}
    for activations in run():
        for name, values in activations.items():
            counts[name] += _histogram(values, *_edges(*widest[name]))
    return {
        name: choose(counts[name], *_edges(lowest, highest), levels, symmetric)
        for name, (lowest, highest) in widest.items()
    }


def _widest(images: Iterator[Activations]) -> dict[str, tuple[float, float]]:
    widest: dict[str, tuple[float, float]] = {}
    for activations in images:
        for name, values in activations.items():
            lowest, highest = float(values.min()), float(values.max())
            if not (np.isfinite(lowest) and np.isfinite(highest)):
                raise ModelError(
                    f"the tensor {name} takes values that are not finite",
                    why="a weight is NaN or infinite, or the model's arithmetic overflows on a calibration image",
                    fix="train the model again with a lower learning rate, and check its weights and images for NaN",
                )
            before = widest.get(name, (0.0, 0.0))
            widest[name] = (min(before[0], lowest), max(before[1], highest))
    return widest


def _range(lowest: float, highest: float) -> Range:
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    if highest - lowest < SMALLEST_WIDTH:
        highest = lowest + SMALLEST_WIDTH
    return Range(lowest=lowest, highest=highest)


def _edges(lowest: float, highest: float) -> tuple[float, float]:
    return lowest, max(highest, lowest + SMALLEST_WIDTH)


def _histogram(values: NDArray[np.float32], lowest: float, highest: float) -> NDArray[np.int64]:
    position = (values.ravel().astype(np.float64) - lowest) * (BINS / (highest - lowest))
    bins = np.clip(position.astype(np.int64), 0, BINS - 1)
    return np.bincount(bins, minlength=BINS)


def _percentile(counts: NDArray[np.int64], lowest: float, highest: float, levels: int, symmetric: bool) -> Range:
    share = np.cumsum(counts) / counts.sum()
    cut = (1 - KEPT) / 2
    width = (highest - lowest) / BINS
    first = int(np.searchsorted(share, cut, side="right"))
    last = int(np.searchsorted(share, 1 - cut, side="left"))
    low = lowest if lowest >= 0 else lowest + first * width
    high = highest if highest <= 0 else lowest + (last + 1) * width
    return _range(low, min(high, highest))


def _least_error(counts: NDArray[np.int64], lowest: float, highest: float, levels: int, symmetric: bool) -> Range:
    centres = lowest + (np.arange(BINS) + 0.5) * (highest - lowest) / BINS
    shares = np.linspace(NARROWEST, 1.0, CANDIDATES)
    errors = [_squared_error(counts, centres, share * lowest, share * highest, levels, symmetric) for share in shares]
    # Of equal errors the widest range, so that a tensor that fits exactly is not clipped.
    best = shares[CANDIDATES - 1 - int(np.argmin(errors[::-1]))]
    return _range(best * lowest, best * highest)


def _squared_error(
    counts: NDArray[np.int64],
    centres: NDArray[np.float64],
    lowest: float,
    highest: float,
    levels: int,
    symmetric: bool,
) -> float:
    if symmetric:
        highest = max(abs(lowest), abs(highest))
        lowest = -highest
    step = (highest - lowest) / (levels - 1)
    first = np.round(lowest / step)
    codes = np.clip(np.round(centres / step), first, first + levels - 1)
    return float(np.dot(counts, (centres - codes * step) ** 2))
