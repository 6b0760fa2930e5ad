"""Refuses what no builder can build, before keras is imported. Knows no architecture."""

from __future__ import annotations

from collections.abc import Sequence

from emb.errors import SpecError


def check_classes(classes: int) -> None:
    """Raises SpecError unless there are at least two classes to tell apart."""
    if classes < 2:
        raise SpecError(
            f"a classifier needs at least 2 classes, not {classes}",
            why="with fewer there is nothing to tell apart",
            fix="give a data set whose train images have two or more different labels",
        )


def check_input(name: str, input_shape: Sequence[int], *, smallest: int) -> None:
    """Raises SpecError unless input_shape is (height, width, channels) with both sides at least `smallest`."""
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise SpecError(
            f"the input shape {tuple(input_shape)} is not (height, width, channels)",
            fix="give three positive numbers, e.g. input.shape = [28, 28, 1]",
        )
    height, width, _ = input_shape
    if min(height, width) < smallest:
        raise SpecError(
            f"{name} cannot take images of {height}x{width} pixels",
            why=f"its convolutions and poolings need at least {smallest}x{smallest}",
            fix=f"set input.shape to [{max(height, smallest)}, {max(width, smallest)}, {input_shape[2]}] or more",
        )


def check_positive(name: str, value: int) -> None:
    """Raises SpecError unless `value` is at least 1."""
    if value < 1:
        raise SpecError(f"{name} must be at least 1, not {value}", fix=f"correct model.arguments.{name}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises SpecError unless `value` is one of `choices`."""
    if value not in choices:
        raise SpecError(f"{name} cannot be {value!r}", fix=f"set model.arguments.{name} to one of {', '.join(choices)}")


def check_dropout(dropout: float) -> None:
    """Raises SpecError unless 0 <= dropout < 1."""
    if not 0 <= dropout < 1:
        raise SpecError(
            f"dropout must be from 0 to below 1, not {dropout:g}",
            why="it is the share of values that a training step sets to zero",
            fix="correct model.arguments.dropout",
        )
