"""What becomes of max(x, limit) before a convolution in integers: which limits, and which bias. Knows no file format.

The integers that x is stored in are chosen from, so that nothing is rounded but the limits, always the same way. What
that and the rounding of weights move on the average goes into the bias of the convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize._ranges import Range


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLimits:
    """(channels,) each. on_grid: the limits that integers stand for.

    exact, stored: what a convolution may take max(x, limit) for below the limit, before and after. Half of the values
    are taken to lie there; all of them where the limit is above the range; where it is below, the range ends instead.
    """

    on_grid: NDArray[np.float64]
    exact: NDArray[np.float64]
    stored: NDArray[np.float64]


def stored_limits(limits: NDArray[np.float32], found: Range, *, levels: int, symmetric: bool = False) -> StoredLimits:
    """limits: of any shape, for values in that range.  levels, symmetric: as for `calibrate`."""
    lowest, highest = found.lowest, found.highest
    if symmetric:
        highest = max(abs(lowest), abs(highest))
        step, first = highest / (levels // 2 - 1), 1 - levels // 2
    else:
        step = (highest - lowest) / (levels - 1)
        first = round(lowest / step)
    given = limits.reshape(-1).astype(np.float64)
    on_grid = np.clip(np.round(given / step), first, first + levels - (2 if symmetric else 1)) * step
    exact = np.maximum(given, first * step)
    return StoredLimits(on_grid=on_grid, exact=exact, stored=np.where(exact > highest, on_grid, (exact + on_grid) / 2))


def bias_for_limits(
    weights: NDArray[np.float32], bias: NDArray[np.float32], limits: StoredLimits, *, bits: int | None
) -> NDArray[np.float32]:
    """(maps,), with which the convolution gives for `stored` what it gave with the old bias for `exact`.

    weights: (maps, channels of a group, height, width), before they are rounded.  bias: (maps,).
    bits: that the weights are rounded to; None if they are not.
    """
    rounded = weights.astype(np.float64) if bits is None else on_weight_grid(weights, bits=bits)
    maps, per_group = weights.shape[:2]

    def given(kernel: NDArray[Any], values: NDArray[np.float64]) -> NDArray[np.float64]:
        by_map = np.repeat(values.reshape(-1, per_group), maps // (values.size // per_group), axis=0)
        total: NDArray[np.float64] = (kernel.astype(np.float64).sum((2, 3)) * by_map).sum(1)
        return total

    return (bias + given(weights, limits.exact) - given(rounded, limits.stored)).astype(np.float32)


def on_weight_grid(weights: NDArray[np.float32], *, bits: int) -> NDArray[np.float64]:
    """Weights on the grid of each of their first axis's channels, symmetric: the largest magnitude keeps its value."""
    exact = weights.astype(np.float64)
    largest = np.abs(exact).max(axis=tuple(range(1, exact.ndim)), keepdims=True)
    step = np.where(largest > 0, largest, 1.0) / (2 ** (bits - 1) - 1)
    grid: NDArray[np.float64] = np.round(exact / step) * step
    return grid
