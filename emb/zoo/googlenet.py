"""GoogLeNet, the first inception network: branches of 1x1, 3x3 and 5x5 convolutions behind 1x1 bottlenecks.

Knows neither data nor training.
"""

from typing import TYPE_CHECKING, Any, Literal, get_args

from emb.zoo._checks import check_choice, check_classes, check_dropout, check_input
from emb.zoo._inception import Fork, Style, conv, convolution, fork, head, inception, max_pool
from emb.zoo._pixels import Preprocessing, raw_pixels
from emb.zoo._stem import Stem, stem_for
from emb.zoo._width import scaled

if TYPE_CHECKING:
    import keras

# No `from __future__ import annotations` here: emb.zoo.check_arguments reads these from the signature.
Block = Literal["bottleneck", "naive"]
Normalization = Literal["lrn", "batch", "none"]

# Table 1 of the paper: filters of each block; "maximum" is a 3x3 max pooling of stride 2.
_TABLE: dict[str, tuple[int, ...]] = {
    #        1x1  3x3 reduce  3x3  5x5 reduce  5x5  pool projection
    "3a":    ( 64,        96, 128,         16,  32,  32),
    "3b":    (128,       128, 192,         32,  96,  64),
    "pool3": (),
    "4a":    (192,        96, 208,         16,  48,  64),
    "4b":    (160,       112, 224,         24,  64,  64),
    "4c":    (128,       128, 256,         24,  64,  64),
    "4d":    (112,       144, 288,         32,  64,  64),
    "4e":    (256,       160, 320,         32, 128, 128),
    "pool4": (),
    "5a":    (256,       160, 320,         32, 128, 128),
    "5b":    (384,       192, 384,         48, 128, 128),
}  # fmt: skip
_AUXILIARY_AFTER = {"4a": "auxiliary1", "4d": "auxiliary2"}
_AUXILIARY_DROPOUT = 0.7

_STEMS: dict[Stem, str] = {
    "full": "as published: a 7x7 convolution of stride 2 and two poolings leave an eighth of the image to block 3a",
    "half": "for 48 to 127 pixels: the 7x7 convolution of stride 2 is the only halving before block 3a",
    "none": "for less than 48 pixels: a 3x3 convolution of stride 1 in place of the 7x7 of stride 2, and no pooling, "
    "so that block 3a sees the whole image",
}


def build(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    block: Block = "bottleneck",
    auxiliary: bool = False,
    dropout: float = 0.4,
    normalization: Normalization = "lrn",
    preprocessing: Preprocessing = "unit",
) -> "keras.Model":
    """GoogLeNet for (height, width, channels) images, an untrained model from raw pixels to class probabilities.

    Input: (batch, height, width, channels) float, 0..255.  Output: (batch, classes) float, summing to 1.
    block: "naive" is figure 2a, without the 1x1 convolutions that save work; its pooling passes all channels on.
    auxiliary: two more outputs, `auxiliary1` and `auxiliary2`, (batch, classes) each, which help in training alone.
    dropout: share of values set to zero before the last layer (the auxiliary ones: 0.7).
    normalization: "lrn" as published; "batch" puts BN behind every convolution instead; "none" has neither.
    preprocessing: as emb.zoo._pixels; the published LRN was made for "caffe", and hardly acts on smaller numbers.

    6,998,552 parameters for 224x224x3 and 1000 classes, 13,378,280 with the auxiliary classifiers, as in Caffe: all
    weights and biases. 1.58 G multiplications: the paper's own table sums to 1.50 G, because its first convolution is
    separable (2.7 k weights); the 1.43 G of Sze et al. 2017 are those of poolings that round down.
    Raises SpecError for fewer than 2 classes, images smaller than 3x3 (with auxiliary classifiers: 9x9), a width that
    empties a layer, a dropout outside of 0 to 1, or an unknown choice.
    Source: Szegedy et al. 2014, "Going deeper with convolutions", table 1 and section 5; place and constants of LRN
    from Caffe's models/bvlc_googlenet, whose alpha of 1e-4 is divided by its 5 channels.
    """
    check_choice("block", block, get_args(Block))
    check_choice("normalization", normalization, get_args(Normalization))
    check_dropout(dropout)
    check_classes(classes)
    beginning = stem_for(input_shape) if len(input_shape) == 3 else "none"
    # With fewer pixels a halving has only one left; the auxiliary classifiers pool 5x5 of half the image.
    check_input("googlenet", input_shape, smallest=9 if auxiliary else 3)

    import keras

    style = Style(width=width, batch_norm=normalization == "batch")
    pixels, x = raw_pixels(input_shape, preprocessing)
    x = _begin(x, beginning, style=style, lrn=normalization == "lrn")
    outputs = []
    for name, counts in _TABLE.items():
        x = _row(x, name, counts, kind=block, style=style)
        if auxiliary and name in _AUXILIARY_AFTER:
            outputs.append(_auxiliary(x, name=_AUXILIARY_AFTER[name], classes=classes, style=style))
    scores = head(x, classes=classes, dropout=dropout)
    return keras.Model(pixels, [scores, *outputs] if outputs else scores, name="googlenet")


def stem(input_shape: tuple[int, int, int], **_arguments: Any) -> str:
    """Which beginning `build` chooses for images of this shape, and why."""
    return _STEMS[stem_for(input_shape)]


def _begin(x: Any, beginning: Stem, *, style: Style, lrn: bool) -> Any:
    """Everything before block 3a: rows 1 to 4 of the table, 192 channels."""
    from keras import layers

    from emb.layers.local_response_norm import LocalResponseNormalization

    def normalized(x: Any, name: str) -> Any:
        return LocalResponseNormalization(depth_radius=2, k=1.0, alpha=2e-5, beta=0.75, name=name)(x) if lrn else x

    def pooled(x: Any, name: str) -> Any:
        # Zeros at the lower right end, as in Caffe, which rounds the size of a pooling's output up.
        return layers.MaxPooling2D(3, strides=2, padding="same", name=name)(x) if beginning == "full" else x

    first = conv(64, 3) if beginning == "none" else conv(64, 7, stride=2)
    x = convolution(x, first, name="conv1", style=style)
    x = normalized(pooled(x, "pool1"), "norm1")
    x = convolution(x, conv(64, 1), name="conv2_reduce", style=style)
    x = convolution(x, conv(192, 3), name="conv2", style=style)
    return pooled(normalized(x, "norm2"), "pool2")


def _row(x: Any, name: str, counts: tuple[int, ...], *, kind: Block, style: Style) -> Any:
    """One row of the table: a block, or a pooling where there are no counts."""
    from keras import layers

    if not counts:
        return layers.MaxPooling2D(3, strides=2, padding="same", name=name)(x)
    branches = _bottleneck(*counts) if kind == "bottleneck" else _naive(*counts)
    return inception(x, branches, name=f"inception{name}", style=style)


def _bottleneck(ones: int, reduce3: int, threes: int, reduce5: int, fives: int, projection: int) -> Fork:
    """Figure 2b."""
    return fork(
        (conv(ones, 1),),
        (conv(reduce3, 1), conv(threes, 3)),
        (conv(reduce5, 1), conv(fives, 5)),
        (max_pool(), conv(projection, 1)),
    )


def _naive(ones: int, _reduce3: int, threes: int, _reduce5: int, fives: int, _projection: int) -> Fork:
    """Figure 2a."""
    return fork((conv(ones, 1),), (conv(threes, 3),), (conv(fives, 5),), (max_pool(),))


def _auxiliary(x: Any, *, name: str, classes: int, style: Style) -> Any:
    """A classifier of an inner block, section 5 of the paper: (batch, classes) probabilities."""
    from keras import layers

    x = layers.AveragePooling2D(5, strides=3, name=f"{name}_pool")(x)
    x = convolution(x, conv(128, 1), name=f"{name}_conv", style=style)
    x = layers.Flatten(name=f"{name}_flatten")(x)
    units = scaled(1024, width=style.width, layer=f"{name}_dense")
    x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"{name}_dense")(x)
    x = layers.Dropout(_AUXILIARY_DROPOUT, name=f"{name}_dropout")(x)
    return layers.Dense(classes, activation="softmax", name=name)(x)
