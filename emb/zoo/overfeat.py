"""OverFeat, the fast model: AlexNet without groups, normalization and overlap, and with wider late convolutions.

Knows neither data nor training.
"""

from typing import TYPE_CHECKING

from emb.zoo._checks import check_classes, check_dropout, check_input
from emb.zoo._pixels import Preprocessing, raw_pixels
from emb.zoo._stem import stem_for
from emb.zoo._width import scaled

if TYPE_CHECKING:
    import keras

# No `from __future__ import annotations` here: emb.zoo.check_arguments reads these from the signature.

# Kernel, stride and padding of the first convolution, units of the hidden dense layers.
_STEMS = {
    "full": (11, 4, "valid", (3072, 4096)),
    "half": (7, 2, "same", (1536, 2048)),
    "none": (5, 1, "same", (768, 1024)),
}

# Channels, kernel, padding; whether 2x2 pooling follows.
_LATER_CONVOLUTIONS = (
    (256, 5, "valid", True),
    (512, 3, "same", False),
    (1024, 3, "same", False),
    (1024, 3, "same", True),
)


def stem(input_shape: tuple[int, int, int]) -> str:
    """How the network begins and ends for images of this shape."""
    kind = stem_for(input_shape)
    kernel, stride, _, units = _STEMS[kind]
    size = {
        "full": "as published, for 128 pixels or more",
        "half": "images of 48 to 127 pixels keep half of their size",
        "none": "images below 48 pixels keep their size",
    }[kind]
    return f"{kernel}x{kernel} convolution with stride {stride}, dense layers of {units[0]} and {units[1]}: {size}"


def build(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    dropout: float = 0.5,
    width: float = 1.0,
    preprocessing: Preprocessing = "unit",
) -> "keras.Model":
    """OverFeat-fast for (height, width, channels) images, an untrained model from raw pixels to class probabilities.

    Input: (batch, height, width, channels) float, 0..255.  Output: (batch, classes) float, summing to 1.
    dropout: of both hidden dense layers.  width: multiplies all channels and units. Small images: see `stem`.

    145,920,872 parameters for 231x231x3 and 1000 classes. The table's second convolution is given 24x24 positions,
    which is what it writes without padding. Kernels start as He et al. 2015 draw them for ReLU.

    Raises SpecError for fewer than 2 classes, images smaller than 16x16, a dropout outside of 0..1 or a width that
    leaves a layer without channels.
    Source: Sermanet et al. 2013, "OverFeat: integrated recognition, localization and detection using convolutional
    networks", table 1.
    """
    check_dropout(dropout)
    check_classes(classes)
    check_input("overfeat", input_shape, smallest=16)
    first_kernel, first_stride, first_padding, units = _STEMS[stem_for(input_shape)]

    import keras
    from keras import layers

    pixels, x = raw_pixels(input_shape, preprocessing)
    x = layers.Conv2D(
        scaled(96, width=width, layer="conv1"),
        first_kernel,
        strides=first_stride,
        padding=first_padding,
        activation="relu",
        kernel_initializer="he_normal",
        name="conv1",
    )(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    for number, (count, kernel, padding, is_pooled) in enumerate(_LATER_CONVOLUTIONS, start=2):
        x = layers.Conv2D(
            scaled(count, width=width, layer=f"conv{number}"),
            kernel,
            padding=padding,
            activation="relu",
            kernel_initializer="he_normal",
            name=f"conv{number}",
        )(x)
        if is_pooled:
            x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    for number, count in enumerate(units, start=6):
        count = scaled(count, width=width, layer=f"dense{number}")
        x = layers.Dense(count, activation="relu", kernel_initializer="he_normal", name=f"dense{number}")(x)
        x = layers.Dropout(dropout, name=f"drop{number}")(x)
    scores = layers.Dense(classes, activation="softmax", name="scores")(x)
    return keras.Model(pixels, scores, name="overfeat")
