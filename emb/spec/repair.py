"""What a repair did, as values: each remedy with the layers that it changed and what it gained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# So many layers are named where a remedy changed more.
_NAMED = 4
_FIELDS = ("scheme", "goal_points", "images", "float_correct", "first_correct", "first_failure")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairTry:
    """One remedy. layers: that it changed, in words, the most changed first.  seconds: with its measurement.

    correct_before, correct_after: validation images that the int8 file gives the right class.
    failure: why there is no such file, or "".  shortfall: why it is undone although it gains, or "".
    """

    remedy: str
    layers: tuple[str, ...]
    correct_before: int
    correct_after: int
    seconds: float
    failure: str = ""
    shortfall: str = ""

    @property
    def is_kept(self) -> bool:
        """A remedy that gains nothing is undone."""
        return self.correct_after > self.correct_before and not self.shortfall

    def line(self, repair: Repair) -> str:
        """The remedy in one line."""
        named = ", ".join(self.layers[:_NAMED]) + (", …" if len(self.layers) > _NAMED else "")
        count = f"{len(self.layers)} tensors or layers" if len(self.layers) != 1 else "1 tensor or layer"
        told = f": {count}: {named}" if self.layers else ": nothing to change"
        if self.failure:
            return f"{self.remedy} failed, {self.seconds:.1f} s: {self.failure}"
        gain = 100 * (self.correct_after - self.correct_before) / repair.images
        undone = f"undone ({self.shortfall})" if self.shortfall else "undone"
        result = f"{gain:+.2f} points, {'kept' if self.is_kept else undone}"
        return f"{self.remedy} {result}, {self.seconds:.1f} s{told}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatLayers:
    """Layers that compute in float32 within an int8 file, and what that costs.

    macs_share: of the model's multiplications, theirs, in [0, 1].  added_bytes: of the .tflite; None where integers
    alone cannot compute the model.
    """

    layers: tuple[str, ...]
    macs_share: float
    added_bytes: int | None

    def line(self, scheme: str) -> str:
        count = "1 layer" if len(self.layers) == 1 else f"{len(self.layers)} layers"
        size = "" if self.added_bytes is None else f", {self.added_bytes:+,} bytes"
        cost = f"{100 * self.macs_share:.2f} % of the MACs{size}; such a file cannot be bundled"
        return f"{scheme}, {count} in float32: {', '.join(self.layers)}; {cost}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """scheme: that was measured, on LiteRT.  goal_points: the most that may be lost, of 100.

    images: validation images.  float_correct, first_correct: how many the float file and the int8 file without any
    remedy give the right class.  first_failure: why that file does not run, or "".
    tries: in order; each began with what the ones before had kept.  float_layers: None if all are integers.
    """

    scheme: str
    goal_points: float
    images: int
    float_correct: int
    first_correct: int
    tries: tuple[RepairTry, ...]
    first_failure: str = ""
    float_layers: FloatLayers | None = None

    @property
    def correct(self) -> int:
        """Of the file with all remedies that were kept."""
        return max((self.first_correct, *(one.correct_after for one in self.tries if one.is_kept)))

    @property
    def enough(self) -> int:
        """The least number of images with which the goal is reached."""
        return math.ceil(self.float_correct - self.goal_points * self.images / 100 - 1e-7)

    @property
    def drop_points(self) -> float:
        """What is lost in the end; negative if something was gained."""
        return 100 * (self.float_correct - self.correct) / self.images

    @property
    def is_reached(self) -> bool:
        return self.correct >= self.enough

    def percent(self, correct: int) -> str:
        return f"{100 * correct / self.images:.2f} %"

    def begin(self) -> str:
        """What there was before any remedy, and what is wanted."""
        failure = f"does not run ({self.first_failure})" if self.first_failure else ""
        first = failure or self.percent(self.first_correct)
        return f"float {self.percent(self.float_correct)}, {self.scheme} {first}, of {self.images:,} validation images"

    def lines(self) -> list[str]:
        """For a report."""
        first = f"repair: {self.begin()}; at most {self.goal_points:g} points may be lost"
        if not self.tries:
            return [f"{first}: nothing to repair"]
        last = f"repaired: {self.percent(self.correct)}, {-self.drop_points + 0.0:+.2f} points against float"
        floats = [self.float_layers.line(self.scheme)] if self.float_layers else []
        return [first, *(one.line(self) for one in self.tries), last, *floats]

    def to_json(self) -> dict[str, Any]:
        return {
            "scheme": self.scheme,
            "goal_points": self.goal_points,
            "images": self.images,
            "float_correct": self.float_correct,
            "first_correct": self.first_correct,
            "first_failure": self.first_failure,
            "correct": self.correct,
            "tries": [{**asdict(one), "layers": list(one.layers), "kept": one.is_kept} for one in self.tries],
            "float_layers": self.float_layers
            and {**asdict(self.float_layers), "layers": list(self.float_layers.layers)},
        }

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Repair:
        fields = {name: table[name] for name in _FIELDS}
        names = ("remedy", "correct_before", "correct_after", "seconds", "failure", "shortfall")
        tries = tuple(
            RepairTry(layers=tuple(one["layers"]), **{name: one[name] for name in names}) for one in table["tries"]
        )
        floats = table["float_layers"]
        kept = FloatLayers(**{**floats, "layers": tuple(floats["layers"])}) if floats else None
        return cls(tries=tries, float_layers=kept, **fields)
