"""Ranges that were chosen elsewhere, for tensors that are known by what they take on the calibration images.

A layer's name does not survive conversion, and an operation may become several; but a tensor of a .tflite or .onnx file
and the tensor of the Keras model that it came from take the same values on the same images. Chooses no range itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from emb.quantize._ranges import Activations, Range

# Of a tensor's width: two ways to compute the same values differ by less, two tensors by more.
TOLERANCE = 2e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """What a tensor takes over all calibration images: extremes, mean and standard deviation, real numbers."""

    lowest: float
    highest: float
    mean: float
    deviation: float

    def distance(self, other: Moments) -> float:
        """The largest difference, as a share of the wider of the two widths."""
        width = max(self.highest - self.lowest, other.highest - other.lowest, 1e-12)
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return float(max(abs(one - another) for one, another in pairs) / width)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRange:
    """The range of the tensor that takes values of these moments."""

    moments: Moments
    range: Range

    def to_json(self) -> dict[str, Any]:
        return {"moments": asdict(self.moments), "range": asdict(self.range)}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> KnownRange:
        return cls(moments=Moments(**table["moments"]), range=Range(**table["range"]))


def moments(images: Iterable[Activations]) -> dict[str, Moments]:
    """The moments of every tensor. images: {tensor name: values} per image or batch, float32 of any shape."""
    sums: dict[str, list[float]] = {}
    for activations in images:
        for name, values in activations.items():
            exact = values.astype(np.float64)
            entry = sums.setdefault(name, [np.inf, -np.inf, 0.0, 0.0, 0.0])
            entry[0] = min(entry[0], float(exact.min()))
            entry[1] = max(entry[1], float(exact.max()))
            entry[2] += exact.size
            entry[3] += float(exact.sum())
            entry[4] += float(np.square(exact).sum())
    found = {}
    for name, (lowest, highest, count, total, squares) in sums.items():
        mean = total / count
        deviation = float(np.sqrt(max(squares / count - mean * mean, 0.0)))
        found[name] = Moments(lowest=lowest, highest=highest, mean=mean, deviation=deviation)
    return found


def recognized(known: Sequence[KnownRange], seen: Mapping[str, Moments]) -> dict[str, Range]:
    """The ranges of those tensors that are known, by their names in the file."""
    found = {}
    for name, one in seen.items():
        nearest = min(known, key=lambda entry: entry.moments.distance(one), default=None)
        if nearest is not None and nearest.moments.distance(one) < TOLERANCE:
            found[name] = nearest.range
    return found
