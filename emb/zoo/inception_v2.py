"""Inception-v2 (BN-Inception): GoogLeNet with batch normalization, and two 3x3 convolutions in place of each 5x5.

Knows neither data nor training.
"""

from typing import TYPE_CHECKING, Any

from emb.zoo._checks import check_classes, check_dropout, check_input
from emb.zoo._inception import (
    Fork,
    Style,
    average_pool,
    blocks,
    conv,
    convolution,
    fork,
    head,
    max_pool,
)
from emb.zoo._pixels import Preprocessing, raw_pixels
from emb.zoo._stem import Stem, stem_for

if TYPE_CHECKING:
    import keras

# No `from __future__ import annotations` here: emb.zoo.check_arguments reads these from the signature.

# Figure 5 of the paper: filters of each block, and how its pooling branch ends. Blocks 4c and 4d are drawn with a
# projection to 128, but 576 channels come out of them in the next column only with the 96 of the authors' own code
# (TF-Slim's inception_v2); Caffe's port takes 128, and has 608.
_TABLE: dict[str, tuple[int, int, int, int, int, str, int]] = {
    #      1x1  3x3 reduce  3x3  double 3x3 reduce  double 3x3  pooling  projection
    "3a": ( 64,         64,  64,                64,         96, "average",  32),
    "3b": ( 64,         64,  96,                64,         96, "average",  64),
    "3c": (  0,        128, 160,                64,         96, "halving",   0),
    "4a": (224,         64,  96,                96,        128, "average", 128),
    "4b": (192,         96, 128,                96,        128, "average", 128),
    "4c": (160,        128, 160,               128,        160, "average",  96),
    "4d": ( 96,        128, 192,               160,        192, "average",  96),
    "4e": (  0,        128, 192,               192,        256, "halving",   0),
    "5a": (352,        192, 320,               160,        224, "average", 128),
    "5b": (352,        192, 320,               192,        224, "max",     128),
}  # fmt: skip

_STEMS: dict[Stem, str] = {
    "full": "as published: a separable 7x7 convolution of stride 2 and two poolings leave an eighth of the image to "
    "block 3a",
    "half": "for 48 to 127 pixels: the separable 7x7 convolution of stride 2 is the only halving before block 3a",
    "none": "for less than 48 pixels: a 3x3 convolution of stride 1 in place of the separable 7x7 of stride 2, and no "
    "pooling, so that block 3a sees the whole image",
}


def build(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    dropout: float = 0.0,
    preprocessing: Preprocessing = "unit",
) -> "keras.Model":
    """Inception-v2 for (height, width, channels) images, an untrained model from raw pixels to class probabilities.

    Input: (batch, height, width, channels) float, 0..255.  Output: (batch, classes) float, summing to 1.
    dropout: share of values set to zero before the last layer; the paper removes it (section 4.2.1).
    preprocessing: as emb.zoo._pixels.

    11,188,288 trainable parameters for 224x224x3 and 1000 classes: the first convolution is separable, with depth
    multiplier 8, as in section 4.2 of the paper; no convolution has a bias, and BN has both scale and shift. The
    paper states no count.
    Raises SpecError for fewer than 2 classes, images smaller than 3x3, a width that empties a layer, or a dropout
    outside of 0 to 1.
    Source: Ioffe and Szegedy 2015, "Batch normalization: accelerating deep network training by reducing internal
    covariate shift", section 4.2 and figure 5.
    """
    check_dropout(dropout)
    check_classes(classes)
    # With fewer pixels a halving has only one left.
    check_input("inception-v2", input_shape, smallest=3)

    import keras

    style = Style(width=width)
    pixels, x = raw_pixels(input_shape, preprocessing)
    x = _begin(x, stem_for(input_shape), style=style)
    x = blocks(x, [(f"inception{name}", _block(*row)) for name, row in _TABLE.items()], style=style)
    scores = head(x, classes=classes, dropout=dropout)
    return keras.Model(pixels, scores, name="inception_v2")


def stem(input_shape: tuple[int, int, int], **_arguments: Any) -> str:
    """Which beginning `build` chooses for images of this shape, and why."""
    return _STEMS[stem_for(input_shape)]


def _begin(x: Any, beginning: Stem, *, style: Style) -> Any:
    """Everything before block 3a: 192 channels."""
    from keras import layers

    def pooled(x: Any, name: str) -> Any:
        return layers.MaxPooling2D(3, strides=2, padding="same", name=name)(x) if beginning == "full" else x

    if beginning == "none":
        x = convolution(x, conv(64, 3), name="conv1", style=style)
    else:
        # Nothing stands between the two halves of a separable convolution.
        x = layers.DepthwiseConv2D(
            7, strides=2, padding="same", depth_multiplier=8, use_bias=False, name="conv1_depthwise"
        )(x)
        x = convolution(x, conv(64, 1), name="conv1", style=style)
    x = pooled(x, "pool1")
    x = convolution(x, conv(64, 1), name="conv2_reduce", style=style)
    x = convolution(x, conv(192, 3), name="conv2", style=style)
    return pooled(x, "pool2")


def _block(ones: int, reduce3: int, threes: int, reduce_double: int, doubles: int, pool: str, projection: int) -> Fork:
    """A row of the table. A halving has no 1x1 branch, stride 2 at each end, and passes its max pooling through."""
    if pool == "halving":
        return fork(
            (conv(reduce3, 1), conv(threes, 3, stride=2)),
            (conv(reduce_double, 1), conv(doubles, 3), conv(doubles, 3, stride=2)),
            (max_pool(stride=2),),
        )
    return fork(
        (conv(ones, 1),),
        (conv(reduce3, 1), conv(threes, 3)),
        (conv(reduce_double, 1), conv(doubles, 3), conv(doubles, 3)),
        (average_pool() if pool == "average" else max_pool(), conv(projection, 1)),
    )
