"""What pruning did to a model, as values. Knows no method and no table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedLayer:
    """before, after: channels of a group, MACs of a residual branch, weights that are not 0 or different weights of a
    layer, by the method.

    name: of the layer, of the first of those whose channels are tied, or of the sum.  layers: all that are tied.
    """

    name: str
    before: int
    after: int
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpruned:
    """The model before, in the same scheme as `file` says: measured in the same build, on one thread of LiteRT.

    reference_accuracy: of the float model; accuracy: of the .tflite; both over the test split, in [0, 1].
    """

    scheme: str
    reference_accuracy: float
    accuracy: float
    bytes: int
    gzip_bytes: int
    median_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """method, goal, criterion, scope: as in the recipe; criterion and scope "" where the method has none.

    reached: what was measured of the goal, in words; "" where the goal is a number of channels or weights.
    macs, parameters: of the float model.  *_accuracy: over the validation images, in [0, 1]: unpruned, right after
    pruning, and after the fine-tuning.
    epochs: of fine-tuning, all steps together.  distilled: with the unpruned model as teacher.
    layers: what changed.  left_whole: layer -> why it, or some of it, was not pruned.
    unpruned: None if it could not be measured.
    """

    method: str
    goal: str
    criterion: str
    scope: str
    steps: int
    epochs: int
    distilled: bool
    reached: str
    macs_before: int
    macs_after: int
    parameters_before: int
    parameters_after: int
    unpruned_accuracy: float
    pruned_accuracy: float
    tuned_accuracy: float
    layers: tuple[PrunedLayer, ...]
    left_whole: Mapping[str, str]
    unpruned: Unpruned | None = None

    def to_json(self) -> dict[str, Any]:
        """The part of `emb build --json` that says what pruning did, and most of prune.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Pruning:
        """The value that `to_json` wrote."""
        layers = tuple(PrunedLayer(**{**layer, "layers": tuple(layer["layers"])}) for layer in document["layers"])
        unpruned = document["unpruned"] and Unpruned(**document["unpruned"])
        return cls(**{**document, "layers": layers, "unpruned": unpruned})
