"""ResNet: blocks of convolutions that learn what to add to their input; with shortcuts, and plain without them.

Knows neither data nor training.
"""

import math
from typing import TYPE_CHECKING, Literal, get_args

from emb.errors import SpecError
from emb.zoo._checks import check_choice, check_classes, check_input
from emb.zoo._pixels import Preprocessing, raw_pixels
from emb.zoo._residual import Shortcut, Style, basic, bottleneck
from emb.zoo._residual_stem import begin, sentence
from emb.zoo._stem import Stem, stem_for
from emb.zoo._width import scaled

if TYPE_CHECKING:
    import keras

# No `from __future__ import annotations` here: emb.zoo.check_arguments reads these from the signature.
Depth = Literal[8, 20, 32, 44, 56, 110, 18, 34, 50, 101, 152]

# Blocks of each of the four stages, He et al. 2015, table 1.
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_BOTTLENECK_FROM = 50

# Keras's own default, with which the reference of MLPerf Tiny was trained, and keras.applications' ResNet.
_EPSILON_MLPERF, _EPSILON = 1e-3, 1.001e-5


def build(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    depth: Depth = 8,
    shortcut: Shortcut = "projection",
    width: float = 1.0,
    residual_scale: float = 1.0,
    preprocessing: Preprocessing = "unit",
) -> "keras.Model":
    """ResNet for (height, width, channels) images, an untrained model from raw pixels to class probabilities.

    Input: (batch, height, width, channels) float, 0..255.  Output: (batch, classes) float, summing to 1.
    depth: layers with weights on the way through. 18 and 34 have basic blocks, 50, 101 and 152 bottlenecks, in four
    stages of 64 to 512 (2048) channels. 20, 32, 44, 56 and 110 have (depth - 2) / 6 basic blocks in each of three
    stages of 16, 32 and 64 channels. 8 is the network of MLPerf Tiny: one such block in each stage, biases
    everywhere, no normalization of its two projections.
    shortcut: "projection" bridges a block that changes the shape with a 1x1 convolution (option B of the paper),
    "identity" with every second pixel and channels of zeros (option A, with which the paper has 20 to 110), "none"
    leaves all shortcuts out: the plain network of the same depth.
    width: multiplies all channels.  preprocessing: "caffe" is what the published weights of 50 to 152 take.
    residual_scale: what the scales of each block's last normalization begin with. With 0 a block begins as its
    shortcut, and the deepest networks learn from their first steps on (Goyal et al. 2017, section 5.1).
    Small images: see `stem`.

    Trainable parameters at 1000 classes, biases of the dense layer and normalizations' scales and shifts counted:
    18 11,689,512, 34 21,797,672, 50 25,557,032, 101 44,549,160, 152 60,192,808. At 10 classes, 32x32x3 and option
    A: 20 269,722, 32 464,154, 44 658,586, 56 853,018, 110 1,727,962. 8: 78,666, moving statistics counted as well.

    Raises SpecError for fewer than 2 classes, images smaller than 8x8 (8 and 20 to 110: 4x4), an unknown choice, a
    width that leaves a layer without channels, or a residual scale that is negative or leaves a plain network nothing.
    Source: He et al. 2015, "Deep residual learning for image recognition", table 1 and section 4.2; Banbury et al.
    2021, "MLPerf Tiny benchmark", for 8.
    """
    _check_depth(depth)
    check_choice("shortcut", shortcut, get_args(Shortcut))
    check_classes(classes)
    check_input(f"resnet-{depth}", input_shape, smallest=8 if depth in _BLOCKS else 4)
    _check_residual_scale(residual_scale, shortcut)

    import keras
    from keras import layers

    style = Style(
        shortcut=shortcut,
        epsilon=_EPSILON_MLPERF if depth == 8 else _EPSILON,
        biased=depth == 8,
        residual_scale=residual_scale,
    )
    channels = scaled(64 if depth in _BLOCKS else 16, width=width, layer="conv1")
    pixels, x = raw_pixels(input_shape, preprocessing)
    x = begin(x, channels, kind=_stem(input_shape, depth), style=style)
    block, expansion = (bottleneck, 4) if depth in _BLOCKS and depth >= _BOTTLENECK_FROM else (basic, 1)
    for stage, blocks in enumerate(_blocks(depth)):
        for number in range(blocks):
            stride = 2 if stage > 0 and number == 0 else 1
            name = f"stage{stage + 1}_block{number + 1}"
            x = block(x, channels * 2**stage * expansion, stride=stride, style=style, name=name)
    x = layers.GlobalAveragePooling2D(name="average_pool")(x)
    scores = layers.Dense(classes, activation="softmax", name="scores")(x)
    family = "plain" if shortcut == "none" else "resnet"
    return keras.Model(pixels, scores, name=f"{family}_{depth}")


def stem(input_shape: tuple[int, int, int], *, depth: int = 8, **_: object) -> str:
    """Which beginning the images get, and why."""
    if depth not in _BLOCKS:
        return f"3x3 convolution with stride 1, no pooling: as published for resnet-{depth}, which was made for 32x32"
    return sentence(stem_for(input_shape))


def _stem(input_shape: tuple[int, int, int], depth: int) -> Stem:
    return stem_for(input_shape) if depth in _BLOCKS else "none"


def _blocks(depth: int) -> tuple[int, ...]:
    """How many blocks each stage has."""
    return _BLOCKS[depth] if depth in _BLOCKS else ((depth - 2) // 6,) * 3


def _check_depth(depth: int) -> None:
    known = get_args(Depth)
    if depth not in known:
        raise SpecError(
            f"there is no resnet of depth {depth}",
            why="the published ones have 18 to 152 layers for large images, 6 n + 2 for small ones",
            fix=f"set model.arguments.depth to one of {', '.join(map(str, known))}",
        )


def _check_residual_scale(residual_scale: float, shortcut: Shortcut) -> None:
    if not (residual_scale >= 0 and math.isfinite(residual_scale)):
        raise SpecError(
            f"residual_scale must be 0 or more, not {residual_scale:g}",
            fix="1 is the usual one, 0 makes each block begin as its shortcut",
        )
    if residual_scale == 0 and shortcut == "none":
        raise SpecError(
            "a plain network cannot begin with a residual_scale of 0",
            why="without shortcuts nothing would pass its first block",
            fix="leave model.arguments.residual_scale out",
        )
