"""Learning rates and the end of a training as pure functions of step and history. Knows nothing of optimizers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from emb.spec.recipe import TrainSpec


def constant(fraction: float) -> float:
    """1, whatever the fraction of the training that is done."""
    return 1.0


def cosine(fraction: float) -> float:
    """Half a cosine from 1 down to 0. fraction: of the training that is done, in [0, 1].

    Source: Loshchilov and Hutter 2017, "SGDR", equation 5 with one period.
    """
    return 0.5 * (1 + math.cos(math.pi * fraction))


_SHAPES = {"constant": constant, "cosine": cosine}


def plateaus(accuracies: Sequence[float], *, patience_epochs: int) -> int:
    """How often the accuracy has stood still: the number of runs of patience_epochs epochs without a new best one.

    accuracies: of the finished epochs. After each run the count begins anew, the best accuracy stays.
    """
    best, waited, count = -math.inf, 0, 0
    for accuracy in accuracies:
        waited = 0 if accuracy > best else waited + 1
        best = max(best, accuracy)
        if waited == patience_epochs:
            waited, count = 0, count + 1
    return count


def best_epoch(accuracies: Sequence[float]) -> int:
    """The 0-based number of the first epoch with the highest accuracy. accuracies: at least one."""
    return max(range(len(accuracies)), key=lambda epoch: accuracies[epoch])


def is_over(spec: TrainSpec, accuracies: Sequence[float]) -> bool:
    """Whether the training ends after the epochs with these validation accuracies.

    The epochs in which only the head is trained do not count as a wait.
    """
    if len(accuracies) >= spec.epochs:
        return True
    if not spec.early_stopping_epochs or not accuracies:
        return False
    since = max(best_epoch(accuracies), spec.freeze_epochs - 1)
    return len(accuracies) - 1 - since >= spec.early_stopping_epochs


def learning_rate(spec: TrainSpec, step: int, *, steps_per_epoch: int, accuracies: Sequence[float] = ()) -> float:
    """The learning rate of a step (0-based, over all epochs), above 0.

    accuracies: validation accuracies of the finished epochs, for "plateau".
    The frozen epochs come first, at their own rate. The warm-up follows: it rises linearly and reaches
    spec.learning_rate with its last step, or it stays at spec.warmup_learning_rate. The schedule begins after it.
    What is longer than the training is cut at the training's end.
    Sources: Goyal et al. 2017, section 2.2 (linear warm-up); He et al. 2015, section 4.2 (constant warm-up,
    plateau); Szegedy et al. 2014, section 6 (0.96 every 8 epochs).
    """
    steps = spec.epochs * steps_per_epoch
    if not 0 <= step < steps:
        raise ValueError(f"step {step} is not one of {steps} steps")
    frozen_epochs = min(spec.freeze_epochs, spec.epochs)
    warm_epochs = min(frozen_epochs + spec.warmup_epochs, spec.epochs)
    frozen_steps, warm_steps = frozen_epochs * steps_per_epoch, warm_epochs * steps_per_epoch
    if step < frozen_steps:
        return spec.freeze_learning_rate
    if step < warm_steps:
        rise = (step - frozen_steps + 1) / (warm_steps - frozen_steps)
        return spec.warmup_learning_rate or spec.learning_rate * rise
    epoch = step // steps_per_epoch
    if spec.schedule == "step":
        return spec.learning_rate * spec.decay_factor ** ((epoch - warm_epochs) // spec.decay_epochs)
    if spec.schedule == "plateau":
        count = plateaus(accuracies[warm_epochs:epoch], patience_epochs=spec.patience_epochs)
        return spec.learning_rate * spec.decay_factor**count
    return spec.learning_rate * _SHAPES[spec.schedule]((step - warm_steps) / (steps - warm_steps))
