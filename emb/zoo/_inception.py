"""Inception blocks as data: branches of convolutions and poolings side by side, concatenated. Knows no architecture.

A block is written as the papers draw it, `fork((conv(64, 1),), (conv(48, 1), conv(64, 5)), (average_pool(), ...))`:
one tuple per branch, from the block's input to the concatenation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from emb.zoo._normalization import batch_normalized
from emb.zoo._width import scaled

if TYPE_CHECKING:
    import keras

Padding = Literal["same", "valid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A convolution with what follows every convolution of the network. kernel: (height, width)."""

    filters: int
    kernel: tuple[int, int]
    stride: int
    padding: Padding


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """A 3x3 pooling, the only one inside these networks."""

    kind: Literal["max", "average"]
    stride: int
    padding: Padding


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """Branches that read the same input; their outputs are concatenated. An empty branch passes the input on."""

    branches: tuple[tuple[Step, ...], ...]


Step = Convolution | Pooling | Fork


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What all convolutions of one network share.

    width: multiplier of every channel count.  batch_norm: BN between convolution and ReLU, in place of a bias.
    gamma: whether BN learns a scale; the convolution behind the ReLU can learn the same one.
    """

    width: float
    batch_norm: bool = True
    gamma: bool = True


def conv(filters: int, kernel: int | tuple[int, int], *, stride: int = 1, padding: Padding = "same") -> Convolution:
    """A square kernel, or (height, width)."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    return Convolution(filters=filters, kernel=sides, stride=stride, padding=padding)


def max_pool(*, stride: int = 1, padding: Padding = "same") -> Pooling:
    return Pooling(kind="max", stride=stride, padding=padding)


def average_pool() -> Pooling:
    """At the border, the mean of the pixels that are there."""
    return Pooling(kind="average", stride=1, padding="same")


def fork(*branches: tuple[Step, ...]) -> Fork:
    return Fork(branches=branches)


def through(x: keras.KerasTensor, *steps: Step, name: str, style: Style) -> Any:
    """x after the steps, one after the other.

    x: (batch, height, width, channels). Returns the same rank.  name: begins the names of the layers: step a of
    branch 2 of the block `mixed0`, a 1x1 convolution, is `mixed0_2a_1x1`.
    """
    for letter, step in zip("abcdefghijkl", steps, strict=False):
        x = _step(x, step, name=f"{name}{letter}", style=style)
    return x


def inception(x: keras.KerasTensor, branches: Fork, *, name: str, style: Style) -> Any:
    """The concatenation, called `name`, of all branches of x. Channels: (batch, height, width, sum over branches)."""
    from keras import layers

    ends = [
        through(x, *branch, name=f"{name}_{number}", style=style)
        for number, branch in enumerate(branches.branches, start=1)
    ]
    return layers.Concatenate(name=name)(ends)


def convolution(x: keras.KerasTensor, step: Convolution, *, name: str, style: Style) -> Any:
    """Convolution, BN unless the style has none, and ReLU; the layers `name`, `name_bn`, `name_relu`."""
    from keras import layers

    convolved = layers.Conv2D(
        scaled(step.filters, width=style.width, layer=name),
        step.kernel,
        strides=step.stride,
        padding=step.padding,
        use_bias=not style.batch_norm,
        # He et al. 2015: without BN, 22 layers of ReLU would otherwise leave nothing of the signal.
        kernel_initializer="he_normal",
        name=name,
    )(x)
    if style.batch_norm:
        convolved = batch_norm(convolved, name=f"{name}_bn", style=style)
    return layers.ReLU(name=f"{name}_relu")(convolved)


def batch_norm(x: keras.KerasTensor, *, name: str, style: Style) -> Any:
    """BN with the epsilon of 1e-3 of all published inception networks."""
    return batch_normalized(x, epsilon=1e-3, scale=style.gamma, name=name)


def head(x: keras.KerasTensor, *, classes: int, dropout: float) -> Any:
    """Class probabilities, (batch, classes): mean over all positions, dropout in training, a dense layer `scores`."""
    from keras import layers

    x = layers.GlobalAveragePooling2D(name="mean")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return layers.Dense(classes, activation="softmax", name="scores")(x)


def blocks(x: keras.KerasTensor, plan: Sequence[tuple[str, Fork]], *, style: Style) -> Any:
    """x after the named blocks, one after the other."""
    for name, branches in plan:
        x = inception(x, branches, name=name, style=style)
    return x


def _step(x: keras.KerasTensor, step: Step, *, name: str, style: Style) -> Any:
    from keras import layers

    if isinstance(step, Fork):
        return inception(x, step, name=name, style=style)
    if isinstance(step, Convolution):
        height, width = step.kernel
        return convolution(x, step, name=f"{name}_{height}x{width}", style=style)
    kind = layers.MaxPooling2D if step.kind == "max" else layers.AveragePooling2D
    return kind(3, strides=step.stride, padding=step.padding, name=f"{name}_{step.kind}")(x)
