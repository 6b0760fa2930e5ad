"""What a training did, epoch by epoch, as a value that goes into JSON. Knows nothing of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One pass over the train images.

    loss, accuracy: mean over the epoch's batches, augmented images, weights as they were at each step.
    validation_accuracy: of the weights at the epoch's end, over all validation images, as they are.
    learning_rate: of the epoch's last step.  seconds: wall time, validation included.
    """

    loss: float
    accuracy: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The finished epochs, first to last; empty after a training of 0 epochs."""

    epochs: tuple[Epoch, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """{"epochs": [{"loss": …, …}, …]}, plain numbers only."""
        return {"epochs": [asdict(epoch) for epoch in self.epochs]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> History:
        """The history that `to_json` wrote. Raises KeyError or TypeError for anything else."""
        return cls(epochs=tuple(Epoch(**epoch) for epoch in document["epochs"]))
