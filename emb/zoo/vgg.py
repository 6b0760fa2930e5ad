"""VGG: 3x3 convolutions alone, in five stages that end in 2x2 pooling, then dense layers; with 11 to 19 layers.

Knows neither data nor training.
"""

from typing import TYPE_CHECKING, Any, Literal, get_args

from emb.errors import SpecError
from emb.zoo._checks import check_classes, check_dropout, check_input
from emb.zoo._normalization import batch_normalized
from emb.zoo._pixels import Preprocessing, raw_pixels
from emb.zoo._stem import stem_for
from emb.zoo._width import scaled

if TYPE_CHECKING:
    import keras

# No `from __future__ import annotations` here: emb.zoo.check_arguments reads these from the signature.
Depth = Literal[16, 11, 13, 19]

# Convolutions of each of the five stages: the paper's columns A, B, D and E.
_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)

# Below this the fifth pooling would find one position, and halve it to none.
_FIVE_POOLINGS_FROM = 32


def stem(input_shape: tuple[int, int, int]) -> str:
    """How the network ends for images of this shape; it begins alike for all of them."""
    if stem_for(input_shape) == "full":
        return "two hidden dense layers of 4096: as published, for 128 pixels or more"
    if min(input_shape[:2]) >= _FIVE_POOLINGS_FROM:
        return "one hidden dense layer of 512: images below 128 pixels"
    return "one hidden dense layer of 512, no pooling behind the fifth stage: images below 32 pixels"


def build(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    depth: Depth = 16,
    batch_norm: bool = False,
    dropout: float = 0.5,
    width: float = 1.0,
    preprocessing: Preprocessing = "unit",
) -> "keras.Model":
    """VGG for (height, width, channels) images, an untrained model from raw pixels to class probabilities.

    Input: (batch, height, width, channels) float, 0..255.  Output: (batch, classes) float, summing to 1.
    depth: layers with weights, the paper's columns A (11), B (13), D (16) and E (19).
    batch_norm: behind every convolution, which keeps its bias, as torchvision has it.
    dropout: of the hidden dense layers.  width: multiplies all channels and units.
    preprocessing: "caffe" is what the published weights take.  Small images: see `stem`; with 4096 units twice, the
    dense layers of a 32x32 network would have more weights than its convolutions, and CIFAR's VGGs have one of 512.

    Parameters for 224x224x3 and 1000 classes: 11 132,863,336, 13 133,047,848, 16 138,357,544, 19 143,667,240; with
    batch_norm, trainable ones alone: 132,868,840, 133,053,736, 138,365,992, 143,678,248, as torchvision counts.
    Kernels start as He et al. 2015 draw them for ReLU: without it, or a pre-trained shallow network as in the paper,
    16 and 19 layers do not start to learn.

    Raises SpecError for fewer than 2 classes, images smaller than 16x16, an unknown depth, a dropout outside of 0..1
    or a width that leaves a layer without channels.
    Source: Simonyan and Zisserman 2014, "Very deep convolutional networks for large-scale image recognition", table 1.
    """
    _check_depth(depth)
    check_dropout(dropout)
    check_classes(classes)
    check_input(f"vgg-{depth}", input_shape, smallest=16)
    units = (4096, 4096) if stem_for(input_shape) == "full" else (512,)

    import keras
    from keras import layers

    pixels, x = raw_pixels(input_shape, preprocessing)
    for stage, (count, channels) in enumerate(zip(_CONVOLUTIONS[depth], _CHANNELS, strict=True), start=1):
        for number in range(1, count + 1):
            name = f"stage{stage}_conv{number}"
            x = _convolution(x, scaled(channels, width=width, layer=name), batch_norm=batch_norm, name=name)
        if stage < 5 or min(input_shape[:2]) >= _FIVE_POOLINGS_FROM:
            x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for number, count in enumerate(units, start=1):
        count = scaled(count, width=width, layer=f"dense{number}")
        x = layers.Dense(count, activation="relu", kernel_initializer="he_normal", name=f"dense{number}")(x)
        x = layers.Dropout(dropout, name=f"drop{number}")(x)
    scores = layers.Dense(classes, activation="softmax", name="scores")(x)
    return keras.Model(pixels, scores, name=f"vgg{depth}")


def _convolution(x: Any, channels: int, *, batch_norm: bool, name: str) -> Any:
    """3x3 and rectified; x: (batch, height, width, any). Returns the same extents with `channels` channels."""
    from keras import layers

    x = layers.Conv2D(channels, 3, padding="same", kernel_initializer="he_normal", name=name)(x)
    if batch_norm:
        x = batch_normalized(x, epsilon=1e-5, name=f"{name}_bn")
    return layers.ReLU(name=f"{name}_relu")(x)


def _check_depth(depth: int) -> None:
    if depth not in get_args(Depth):
        raise SpecError(
            f"there is no VGG of {depth} layers",
            fix=f"set model.arguments.depth to one of {', '.join(map(str, sorted(get_args(Depth))))}",
        )
