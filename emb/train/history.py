"""What a training did, epoch by epoch, as a value that goes into JSON. Knows nothing of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One pass over the train images.

    loss, accuracy: mean over the epoch's batches, augmented images, weights as they were at each step. The loss is
    the sum over all outputs, each auxiliary one times its weight; the accuracy is that of the first.
    validation_accuracy: over all validation images, as they are, of the epoch's last weights, or of their mean over
    the steps where the recipe keeps that.
    learning_rate: of the epoch's last step.  seconds: wall time, validation included.
    """

    loss: float
    accuracy: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The finished epochs, first to last; empty after a training of 0 epochs.

    kept_epoch: the 1-based number of the epoch whose weights the model has; 0 after a training of 0 epochs.
    """

    epochs: tuple[Epoch, ...] = ()
    kept_epoch: int = 0

    def to_json(self) -> dict[str, Any]:
        """{"epochs": [{"loss": …, …}, …], "kept_epoch": …}, plain numbers only."""
        return {"epochs": [asdict(epoch) for epoch in self.epochs], "kept_epoch": self.kept_epoch}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> History:
        """The history that `to_json` wrote. Raises KeyError or TypeError for anything else."""
        epochs = tuple(Epoch(**epoch) for epoch in document["epochs"])
        return cls(epochs=epochs, kept_epoch=document["kept_epoch"])
