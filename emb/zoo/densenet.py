"""DenseNet: every layer of a block sees the channels of all layers before it.

Knows neither data nor training.
"""

from typing import TYPE_CHECKING, Any, Literal, get_args

from emb.errors import SpecError
from emb.zoo._checks import check_classes, check_input
from emb.zoo._pixels import Preprocessing, raw_pixels
from emb.zoo._residual import Style, convolution, normalized, rectified
from emb.zoo._residual_stem import begin, sentence
from emb.zoo._stem import stem_for
from emb.zoo._width import scaled

if TYPE_CHECKING:
    import keras

# No `from __future__ import annotations` here: emb.zoo.check_arguments reads these from the signature.
Depth = Literal[40, 100, 121, 169, 201, 264]

# Layers of each dense block, Huang et al. 2017, table 1.
_BLOCKS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32), 264: (6, 12, 64, 48)}
_GROWTH, _GROWTH_SMALL = 32, 12
_BOTTLENECK = 4

# keras.applications' DenseNet.
_STYLE = Style(shortcut="none", epsilon=1.001e-5)


def build(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    depth: Depth = 40,
    growth: int = 0,
    width: float = 1.0,
    preprocessing: Preprocessing = "unit",
) -> "keras.Model":
    """DenseNet-BC for (height, width, channels) images, an untrained model from raw pixels to class probabilities.

    Input: (batch, height, width, channels) float, 0..255.  Output: (batch, classes) float, summing to 1.
    depth: 121, 169, 201 and 264 have four dense blocks; 40 and 100, made for 32x32, three of (depth - 4) / 6 layers.
    A layer is a 1x1 convolution to 4 x growth channels and a 3x3 to growth, each behind normalization and ReLU; a
    transition between blocks halves channels (compression 0.5) and sides.
    growth: channels that each layer adds; 0 is the published one, 32, and 12 for 40 and 100.
    width: multiplies the growth, and with it all channels.  preprocessing: "imagenet" is what the published weights
    of 121 to 201 take.  Small images: see `stem`.

    Trainable parameters at 1000 classes: 121 7,978,856, 169 14,149,480, 201 20,013,928, 264 33,337,704. At 10
    classes and 32x32x3: 40 176,122, 100 769,162.

    Raises SpecError for fewer than 2 classes, images smaller than 8x8 (40 and 100: 4x4), an unknown depth, a negative
    growth, or a width that leaves a layer without channels.
    Source: Huang et al. 2017, "Densely connected convolutional networks", tables 1 and 2, section 3.
    """
    _check_arguments(depth=depth, growth=growth)
    check_classes(classes)
    check_input(f"densenet-{depth}", input_shape, smallest=8 if depth in _BLOCKS else 4)

    import keras
    from keras import layers

    published = _GROWTH if depth in _BLOCKS else _GROWTH_SMALL
    growth = scaled(growth or published, width=width, layer="block1_layer1_conv2")
    pixels, x = raw_pixels(input_shape, preprocessing)
    if depth in _BLOCKS:
        x = begin(x, 2 * growth, kind=stem_for(input_shape), style=_STYLE)
    else:
        # Each layer begins with a normalization of its own, and here nothing is pooled before the first.
        x = convolution(x, 2 * growth, 3, style=_STYLE, name="conv1")
    blocks = _blocks(depth)
    for block, count in enumerate(blocks, start=1):
        for layer in range(1, count + 1):
            x = _dense_layer(x, growth, name=f"block{block}_layer{layer}")
        if block < len(blocks):
            x = _transition(x, name=f"transition{block}")
    x = rectified(normalized(x, style=_STYLE, name="last_bn"), name="last_relu")
    x = layers.GlobalAveragePooling2D(name="average_pool")(x)
    scores = layers.Dense(classes, activation="softmax", name="scores")(x)
    return keras.Model(pixels, scores, name=f"densenet_{depth}")


def stem(input_shape: tuple[int, int, int], *, depth: int = 40, **_: object) -> str:
    """Which beginning the images get, and why."""
    if depth not in _BLOCKS:
        return f"3x3 convolution with stride 1, no pooling: as published for densenet-{depth}, which was made for 32x32"
    return sentence(stem_for(input_shape))


def _dense_layer(x: Any, growth: int, *, name: str) -> Any:
    """(batch, height, width, channels) -> (batch, height, width, channels + growth), the new ones last."""
    from keras import layers

    new = rectified(normalized(x, style=_STYLE, name=f"{name}_bn1"), name=f"{name}_relu1")
    new = convolution(new, _BOTTLENECK * growth, 1, style=_STYLE, name=f"{name}_conv1")
    new = rectified(normalized(new, style=_STYLE, name=f"{name}_bn2"), name=f"{name}_relu2")
    new = convolution(new, growth, 3, style=_STYLE, name=f"{name}_conv2")
    return layers.Concatenate(name=f"{name}_concat")([x, new])


def _transition(x: Any, *, name: str) -> Any:
    """(batch, height, width, channels) -> (batch, height / 2, width / 2, channels / 2), rounded down."""
    from keras import layers

    x = rectified(normalized(x, style=_STYLE, name=f"{name}_bn"), name=f"{name}_relu")
    x = convolution(x, x.shape[-1] // 2, 1, style=_STYLE, name=f"{name}_conv")
    return layers.AveragePooling2D(2, name=f"{name}_pool")(x)


def _blocks(depth: int) -> tuple[int, ...]:
    """How many layers each dense block has."""
    return _BLOCKS[depth] if depth in _BLOCKS else ((depth - 4) // 6,) * 3


def _check_arguments(*, depth: int, growth: int) -> None:
    known = get_args(Depth)
    if depth not in known:
        raise SpecError(
            f"there is no densenet of depth {depth}",
            why="the published ones have 121 to 264 layers for large images, 40 or 100 for small ones",
            fix=f"set model.arguments.depth to one of {', '.join(map(str, known))}",
        )
    if growth < 0:
        raise SpecError(f"growth cannot be {growth}", fix="set model.arguments.growth to at least 1, or to 0")
