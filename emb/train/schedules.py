"""Learning rates as pure functions of the step. Knows nothing of optimizers."""

from __future__ import annotations

import math

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


def learning_rate(spec: TrainSpec, step: int, *, steps_per_epoch: int) -> float:
    """The learning rate of a step (0-based, over all epochs), in (0, spec.learning_rate].

    The warm-up rises linearly and reaches spec.learning_rate with its last step; the schedule begins after it.
    A warm-up longer than the training is cut at the training's end.
    Source of the warm-up: Goyal et al. 2017, section 2.2.
    """
    steps = spec.epochs * steps_per_epoch
    if not 0 <= step < steps:
        raise ValueError(f"step {step} is not one of {steps} steps")
    warmup_steps = min(spec.warmup_epochs, spec.epochs) * steps_per_epoch
    if step < warmup_steps:
        return spec.learning_rate * ((step + 1) / warmup_steps)
    fraction = (step - warmup_steps) / (steps - warmup_steps)
    return spec.learning_rate * _SHAPES[spec.schedule](fraction)
