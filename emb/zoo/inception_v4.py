"""Inception-v4: a uniform, deeper inception network with a branching stem and without residual connections.

Knows neither data nor training.
"""

from typing import TYPE_CHECKING, Any

from emb.zoo._checks import check_classes, check_dropout, check_input
from emb.zoo._inception import (
    Fork,
    Padding,
    Step,
    Style,
    average_pool,
    blocks,
    conv,
    fork,
    head,
    max_pool,
    through,
)
from emb.zoo._pixels import Preprocessing, raw_pixels
from emb.zoo._stem import Stem, stem_for

if TYPE_CHECKING:
    import keras

# No `from __future__ import annotations` here: emb.zoo.check_arguments reads these from the signature.
_STEMS: dict[Stem, str] = {
    "full": "as published: valid convolutions and three halvings leave an eighth of the image to the first block",
    "half": "for 48 to 127 pixels: the first convolution is the only halving before the first block, and zeros are "
    "padded",
    "none": "for less than 48 pixels: the published convolutions and poolings with stride 1 and padded zeros, so that "
    "the first block sees the whole image",
}


def build(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    dropout: float = 0.2,
    preprocessing: Preprocessing = "unit",
) -> "keras.Model":
    """Inception-v4 for (height, width, channels) images, an untrained model from raw pixels to class probabilities.

    Input: (batch, height, width, channels) float, 0..255.  Output: (batch, classes) float, summing to 1.
    dropout: share of values set to zero before the last layer; the paper keeps 0.8.
    preprocessing: as emb.zoo._pixels; published weights need "signed".

    42,679,816 trainable parameters for 299x299x3 and 1000 classes, at any image size: as timm counts, with scale and
    shift of BN, without its moving means and variances, and no convolution has a bias.
    Raises SpecError for fewer than 2 classes, images smaller than 7x7, a width that empties a layer, or a dropout
    outside of 0 to 1.
    Source: Szegedy et al. 2016, "Inception-v4, Inception-ResNet and the impact of residual connections on learning",
    figures 3 to 9, and table 1 for reduction A. Where 1xn and nx1 follow each other, their order is that of the
    authors' code, TF-Slim's inception_v4.
    """
    check_dropout(dropout)
    check_classes(classes)
    # Both reductions halve without padding: 7 -> 3 -> 1.
    check_input("inception-v4", input_shape, smallest=7)

    import keras

    style = Style(width=width)
    pixels, x = raw_pixels(input_shape, preprocessing)
    x = through(x, *_beginning(stem_for(input_shape)), name="stem_", style=style)
    x = blocks(x, _plan(), style=style)
    scores = head(x, classes=classes, dropout=dropout)
    return keras.Model(pixels, scores, name="inception_v4")


def stem(input_shape: tuple[int, int, int], **_arguments: Any) -> str:
    """Which beginning `build` chooses for images of this shape, and why."""
    return _STEMS[stem_for(input_shape)]


def _beginning(chosen: Stem) -> tuple[Step, ...]:
    """Figure 3: 299x299x3 -> 35x35x384."""
    padding: Padding = "valid" if chosen == "full" else "same"
    first, later = {"full": (2, 2), "half": (2, 1), "none": (1, 1)}[chosen]
    pool = max_pool(stride=later, padding=padding)
    return (
        conv(32, 3, stride=first, padding=padding),
        conv(32, 3, padding=padding),
        conv(64, 3),
        fork((pool,), (conv(96, 3, stride=later, padding=padding),)),  # 73x73x160
        fork(
            (conv(64, 1), conv(96, 3, padding=padding)),
            (conv(64, 1), conv(64, (1, 7)), conv(64, (7, 1)), conv(96, 3, padding=padding)),
        ),  # 71x71x192
        fork((conv(192, 3, stride=later, padding=padding),), (pool,)),
    )


def _plan() -> list[tuple[str, Fork]]:
    """Figure 9, with the sizes of the blocks' outputs for 299x299 images."""
    return [
        *((f"a{number}", _block_a()) for number in range(1, 5)),  # 35x35x384
        ("reduction_a", _reduction_a()),  # 17x17x1024
        *((f"b{number}", _block_b()) for number in range(1, 8)),
        ("reduction_b", _reduction_b()),  # 8x8x1536
        *((f"c{number}", _block_c()) for number in range(1, 4)),
    ]


def _block_a() -> Fork:
    """Figure 4."""
    return fork(
        (conv(96, 1),),
        (conv(64, 1), conv(96, 3)),
        (conv(64, 1), conv(96, 3), conv(96, 3)),
        (average_pool(), conv(96, 1)),
    )


def _reduction_a() -> Fork:
    """Figure 7 with k, l, m, n = 192, 224, 256, 384."""
    return fork(
        (conv(384, 3, stride=2, padding="valid"),),
        (conv(192, 1), conv(224, 3), conv(256, 3, stride=2, padding="valid")),
        (max_pool(stride=2, padding="valid"),),
    )


def _block_b() -> Fork:
    """Figure 5."""
    return fork(
        (conv(384, 1),),
        (conv(192, 1), conv(224, (1, 7)), conv(256, (7, 1))),
        (conv(192, 1), conv(192, (7, 1)), conv(224, (1, 7)), conv(224, (7, 1)), conv(256, (1, 7))),
        (average_pool(), conv(128, 1)),
    )


def _reduction_b() -> Fork:
    """Figure 8."""
    return fork(
        (conv(192, 1), conv(192, 3, stride=2, padding="valid")),
        (conv(256, 1), conv(256, (1, 7)), conv(320, (7, 1)), conv(320, 3, stride=2, padding="valid")),
        (max_pool(stride=2, padding="valid"),),
    )


def _block_c() -> Fork:
    """Figure 6: the branches themselves fork into 1x3 and 3x1."""
    sides = fork((conv(256, (1, 3)),), (conv(256, (3, 1)),))
    return fork(
        (conv(256, 1),),
        (conv(384, 1), sides),
        (conv(384, 1), conv(448, (3, 1)), conv(512, (1, 3)), sides),
        (average_pool(), conv(256, 1)),
    )
