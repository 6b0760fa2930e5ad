"""What `emb train` tells, as values. Knows no table and no terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientSummary:
    """Median 2-norms of the gradient over the last epoch's steps, of the layers nearest to input and output."""

    layers: int
    steps: int
    first_layer: str
    first_norm: float
    last_layer: str
    last_norm: float

    def to_json(self) -> dict[str, Any]:
        """Plain values under the fields' names."""
        return {
            "layers": self.layers,
            "steps": self.steps,
            "first": {"layer": self.first_layer, "median_norm": self.first_norm},
            "last": {"layer": self.last_layer, "median_norm": self.last_norm},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceSummary:
    """Mean cross-entropies in nats over some validation images: of the model, and of all points around it.

    points: to a side of the square.
    """

    points: int
    images: int
    loss_of_model: float
    lowest_loss: float
    highest_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """All that a training says.

    epochs: one mapping for each, first to last: loss, accuracy, validation_accuracy (in [0, 1]), learning_rate,
    seconds.  kept_epoch: the one whose weights the model has, from 1.  cached: nothing was trained anew.
    seconds: wall time of the training, whenever it was done.  tensorboard: the run's directory, if there are events.
    notes: what the user should know of the data.
    """

    recipe: str
    data: str
    directory: Path
    cached: bool
    backend: str
    devices: int | str
    seconds: float
    epochs: tuple[Mapping[str, float], ...]
    kept_epoch: int
    gradients: GradientSummary | None = None
    surface: SurfaceSummary | None = None
    tensorboard: Path | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document of `emb train --json`."""
        return {
            "recipe": self.recipe,
            "data": self.data,
            "directory": str(self.directory),
            "cached": self.cached,
            "backend": self.backend,
            "devices": self.devices,
            "seconds": self.seconds,
            "epochs": [dict(epoch) for epoch in self.epochs],
            "kept_epoch": self.kept_epoch,
            "gradients": None if self.gradients is None else self.gradients.to_json(),
            "surface": None if self.surface is None else asdict(self.surface),
            "tensorboard": None if self.tensorboard is None else str(self.tensorboard),
            "notes": list(self.notes),
        }
