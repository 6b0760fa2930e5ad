"""How far a training is, told often enough for a bar and seldom enough to cost nothing. Draws nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from emb.train.history import Epoch

_SECONDS_BETWEEN_REPORTS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A moment of a training. epoch and step count from 1; step == steps at the end of an epoch.

    loss, accuracy: mean over the epoch so far.  validation_accuracy: None until the epoch is validated.
    learning_rate: of the step.
    seconds_left: an estimate from the steps that this process has done, for all epochs of the recipe.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    validation_accuracy: float | None
    learning_rate: float
    seconds_left: float


@dataclass(slots=True, kw_only=True)
class Reporter:
    """Hands Progress on to `listener`: at most ten times a second, and at the end of every epoch.

    epochs, steps: of the whole training.  first_epoch: the 0-based epoch with which this process begins.
    """

    listener: Callable[[Progress], None]
    epochs: int
    steps: int
    first_epoch: int
    _began: float | None = field(init=False, default=None)
    _told: float = field(init=False, default=0.0)

    def step_done(self, *, epoch: int, step: int, loss: float, accuracy: float, learning_rate: float) -> None:
        """epoch, step: 0-based numbers of the step that was just done."""
        now = time.monotonic()
        if self._began is None:
            # The first step compiles; counting it would make every estimate too long.
            self._began = now
        if now - self._told < _SECONDS_BETWEEN_REPORTS or step + 1 == self.steps:
            return
        self._tell(
            now,
            epoch=epoch,
            step=step,
            loss=loss,
            accuracy=accuracy,
            validation_accuracy=None,
            learning_rate=learning_rate,
        )

    def epoch_done(self, *, epoch: int, result: Epoch) -> None:
        """epoch: 0-based number of the epoch that was just validated."""
        self._tell(
            time.monotonic(),
            epoch=epoch,
            step=self.steps - 1,
            loss=result.loss,
            accuracy=result.accuracy,
            validation_accuracy=result.validation_accuracy,
            learning_rate=result.learning_rate,
        )

    def _tell(
        self,
        now: float,
        *,
        epoch: int,
        step: int,
        loss: float,
        accuracy: float,
        validation_accuracy: float | None,
        learning_rate: float,
    ) -> None:
        self._told = now
        timed_steps = (epoch - self.first_epoch) * self.steps + step
        steps_left = (self.epochs - epoch) * self.steps - (step + 1)
        began = now if self._began is None else self._began
        self.listener(
            Progress(
                epoch=epoch + 1,
                epochs=self.epochs,
                step=step + 1,
                steps=self.steps,
                loss=loss,
                accuracy=accuracy,
                validation_accuracy=validation_accuracy,
                learning_rate=learning_rate,
                seconds_left=(now - began) / max(timed_steps, 1) * steps_left,
            )
        )
