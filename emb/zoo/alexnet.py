"""AlexNet: five convolutions, the first 11x11, with local response normalization and overlapping pooling; three dense.

Knows neither data nor training.
"""

from typing import TYPE_CHECKING, Any, Literal, get_args

from emb.zoo._checks import check_choice, check_classes, check_dropout, check_input
from emb.zoo._normalization import batch_normalized
from emb.zoo._pixels import Preprocessing, raw_pixels
from emb.zoo._stem import stem_for
from emb.zoo._width import scaled

if TYPE_CHECKING:
    import keras

# No `from __future__ import annotations` here: emb.zoo.check_arguments reads these from the signature.
Normalization = Literal["lrn", "lrn-intra", "batch", "none"]
Pooling = Literal["max", "l2"]
Groups = Literal["together", "split"]

# Kernel, stride and padding of the first convolution, units of the two hidden dense layers.
_STEMS = {"full": (11, 4, "valid", 4096), "half": (7, 2, "same", 2048), "none": (5, 1, "same", 1024)}

# Channels, kernel, groups; normalized behind it; pooled behind it. The groups are the two GPUs of 2012.
_CONVOLUTIONS = (
    (96, None, 1, True, True),
    (256, 5, 2, True, True),
    (384, 3, 1, False, False),
    (384, 3, 2, False, False),
    (256, 3, 2, False, True),
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
    return f"{kernel}x{kernel} convolution with stride {stride}, dense layers of {units}: {size}"


def build(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    normalization: Normalization = "lrn",
    pooling: Pooling = "max",
    groups: Groups = "together",
    dropout: float = 0.5,
    width: float = 1.0,
    preprocessing: Preprocessing = "unit",
) -> "keras.Model":
    """AlexNet for (height, width, channels) images, an untrained model from raw pixels to class probabilities.

    Input: (batch, height, width, channels) float, 0..255.  Output: (batch, classes) float, summing to 1.
    normalization: of the first two convolutions, behind ReLU: "lrn" across channels (k = 2, n = 5, alpha = 1e-4,
    beta = 0.75), "lrn-intra" across positions; or "batch" before ReLU of all five; or "none".
    pooling: 3x3 with stride 2, of the largest value or of the root of the sum of squares. In int8, "l2" runs on
    LiteRT alone.
    groups: second, fourth and fifth convolution are two groups, as on two GPUs: "together" in one operation, or "split"
    into one convolution for each group, with bias and ReLU of its own, and a concatenation. The same network: weights
    of the one form fit the other. Accelerators that know no groups take "split".
    dropout: of both hidden dense layers.  width: multiplies all channels and units. Small images: see `stem`.

    60,965,224 parameters for 227x227x3 and 1000 classes, as of Caffe's bvlc_alexnet. Kernels start as He et al. 2015
    draw them for ReLU and biases at 0; the paper drew all kernels with a deviation of 0.01.

    Raises SpecError for fewer than 2 classes, images smaller than 15x15, an unknown choice, a dropout outside of 0..1
    or a width that leaves a layer without channels.
    Source: Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural networks",
    sections 3.3 to 3.5 and 4.2; Caffe's models/bvlc_alexnet for 227 pixels.
    """
    check_choice("normalization", normalization, get_args(Normalization))
    check_choice("pooling", pooling, get_args(Pooling))
    check_choice("groups", groups, get_args(Groups))
    check_dropout(dropout)
    check_classes(classes)
    check_input("alexnet", input_shape, smallest=15)
    first_kernel, first_stride, first_padding, units = _STEMS[stem_for(input_shape)]
    channels = _channels(width)
    units = scaled(units, width=width, layer="dense6")

    import keras
    from keras import layers

    pixels, x = raw_pixels(input_shape, preprocessing)
    for number, (_, kernel, parts, is_normalized, is_pooled) in enumerate(_CONVOLUTIONS, start=1):
        convolved = _convolved_apart if parts > 1 and groups == "split" else _convolved
        x = convolved(
            x,
            channels[number - 1],
            name=str(number),
            groups=parts,
            batch=normalization == "batch",
            kernel_size=kernel or first_kernel,
            strides=1 if kernel else first_stride,
            padding="same" if kernel else first_padding,
        )
        if is_normalized and normalization in ("lrn", "lrn-intra"):
            x = _normalized(x, number, across="channels" if normalization == "lrn" else "space")
        if is_pooled:
            x = _pooled(x, number, pooling=pooling)
    x = layers.Flatten(name="flatten")(x)
    for number in (6, 7):
        x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"dense{number}")(x)
        x = layers.Dropout(dropout, name=f"drop{number}")(x)
    scores = layers.Dense(classes, activation="softmax", name="scores")(x)
    return keras.Model(pixels, scores, name="alexnet")


def _channels(width: float) -> list[int]:
    """Of each convolution; what groups read or write is divisible by their number."""
    read_by = [groups for _, _, groups, _, _ in _CONVOLUTIONS[1:]] + [1]
    return [
        scaled(count, width=width, layer=f"conv{number}", multiple=max(groups, following))
        for number, ((count, _, groups, _, _), following) in enumerate(zip(_CONVOLUTIONS, read_by, strict=True), 1)
    ]


def _convolved(x: Any, channels: int, *, name: str, groups: int = 1, batch: bool, **settings: Any) -> Any:
    """Convolution, batch normalization if `batch`, and ReLU; the layers `conv` + name, `bn` + name, `relu` + name."""
    from keras import layers

    from emb.layers import GroupedConv2D

    kind = layers.Conv2D if groups == 1 else GroupedConv2D
    x = kind(channels, groups=groups, kernel_initializer="he_normal", name=f"conv{name}", **settings)(x)
    if batch:
        x = batch_normalized(x, epsilon=1e-5, name=f"bn{name}")
    return layers.ReLU(name=f"relu{name}")(x)


def _convolved_apart(x: Any, channels: int, *, name: str, groups: int, batch: bool, **settings: Any) -> Any:
    """The same as `_convolved`, but one branch for each group."""
    from keras import layers

    from emb.layers import ChannelSplit

    branches = [
        _convolved(part, channels // groups, name=f"{name}_group{group}", batch=batch, **settings)
        for group, part in enumerate(ChannelSplit(groups, name=f"split{name}")(x), start=1)
    ]
    return layers.Concatenate(name=f"join{name}")(branches)


def _normalized(x: Any, number: int, *, across: str) -> Any:
    from emb.layers import LocalResponseNormalization

    return LocalResponseNormalization(across=across, name=f"norm{number}")(x)


def _pooled(x: Any, number: int, *, pooling: Pooling) -> Any:
    from keras import layers

    from emb.layers import L2Pooling2D

    pool = layers.MaxPooling2D if pooling == "max" else L2Pooling2D
    return pool(3, strides=2, name=f"pool{number}")(x)
