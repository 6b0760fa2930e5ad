"""Inception-v3: 5x5 and 7x7 convolutions factorized into smaller ones and into 1xn and nx1; three sizes of grid.

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
    "full": "as published: valid convolutions and three halvings leave an eighth of the image to block mixed0",
    "half": "for 48 to 127 pixels: the first convolution is the only halving before block mixed0, and zeros are padded",
    "none": "for less than 48 pixels: the published convolutions with stride 1 and padded zeros, and no pooling, so "
    "that block mixed0 sees the whole image",
}


def build(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    dropout: float = 0.2,
    preprocessing: Preprocessing = "unit",
) -> "keras.Model":
    """Inception-v3 for (height, width, channels) images, an untrained model from raw pixels to class probabilities.

    Input: (batch, height, width, channels) float, 0..255.  Output: (batch, classes) float, summing to 1.
    dropout: share of values set to zero before the last layer.
    preprocessing: as emb.zoo._pixels; published weights need "signed".

    23,851,784 parameters for 299x299x3 and 1000 classes, at any image size, of them 34,432 moving means and
    variances: the network of keras.applications.InceptionV3, whose weights fit. BN has no scale and no convolution a
    bias; the auxiliary classifier is left out.
    Raises SpecError for fewer than 2 classes, images smaller than 7x7, a width that empties a layer, or a dropout
    outside of 0 to 1.
    Source: Szegedy et al. 2015, "Rethinking the inception architecture for computer vision", figures 5, 6, 7 and 10;
    beginning, filters and dropout from the authors' code, TF-Slim's inception_v3, which is what is known by that name.
    """
    check_dropout(dropout)
    check_classes(classes)
    # mixed3 and mixed8 halve without padding: 7 -> 3 -> 1.
    check_input("inception-v3", input_shape, smallest=7)

    import keras

    style = Style(width=width, gamma=False)
    pixels, x = raw_pixels(input_shape, preprocessing)
    x = through(x, *_beginning(stem_for(input_shape)), name="stem_", style=style)
    x = blocks(x, [(f"mixed{number}", branches) for number, branches in enumerate(_plan())], style=style)
    scores = head(x, classes=classes, dropout=dropout)
    return keras.Model(pixels, scores, name="inception_v3")


def stem(input_shape: tuple[int, int, int], **_arguments: Any) -> str:
    """Which beginning `build` chooses for images of this shape, and why."""
    return _STEMS[stem_for(input_shape)]


def _beginning(chosen: Stem) -> tuple[Step, ...]:
    """299x299x3 -> 35x35x192. Table 1 of the paper has stride 2 where the authors' code has the second pooling."""
    padding: Padding = "valid" if chosen == "full" else "same"
    pool = (max_pool(stride=2, padding="valid"),) if chosen == "full" else ()
    return (
        conv(32, 3, stride=1 if chosen == "none" else 2, padding=padding),
        conv(32, 3, padding=padding),
        conv(64, 3),
        *pool,
        conv(80, 1),
        conv(192, 3, padding=padding),
        *pool,
    )


def _plan() -> list[Fork]:
    """All blocks, with the sizes of their outputs for 299x299 images."""
    return [
        _block_a(32),  # 35x35x256
        _block_a(64),  # 35x35x288
        _block_a(64),
        _halving_a(),  # 17x17x768
        _block_b(128),
        _block_b(160),
        _block_b(160),
        _block_b(192),
        _halving_b(),  # 8x8x1280
        _block_c(),  # 8x8x2048
        _block_c(),
    ]


def _block_a(projection: int) -> Fork:
    """Figure 5, but with the 5x5 convolution that the authors' code keeps."""
    return fork(
        (conv(64, 1),),
        (conv(48, 1), conv(64, 5)),
        (conv(64, 1), conv(96, 3), conv(96, 3)),
        (average_pool(), conv(projection, 1)),
    )


def _halving_a() -> Fork:
    """Figure 10."""
    return fork(
        (conv(384, 3, stride=2, padding="valid"),),
        (conv(64, 1), conv(96, 3), conv(96, 3, stride=2, padding="valid")),
        (max_pool(stride=2, padding="valid"),),
    )


def _block_b(inner: int) -> Fork:
    """Figure 6 with n = 7."""
    return fork(
        (conv(192, 1),),
        (conv(inner, 1), conv(inner, (1, 7)), conv(192, (7, 1))),
        (conv(inner, 1), conv(inner, (7, 1)), conv(inner, (1, 7)), conv(inner, (7, 1)), conv(192, (1, 7))),
        (average_pool(), conv(192, 1)),
    )


def _halving_b() -> Fork:
    """Figure 10, its second branch factorized as in figure 6."""
    return fork(
        (conv(192, 1), conv(320, 3, stride=2, padding="valid")),
        (conv(192, 1), conv(192, (1, 7)), conv(192, (7, 1)), conv(192, 3, stride=2, padding="valid")),
        (max_pool(stride=2, padding="valid"),),
    )


def _block_c() -> Fork:
    """Figure 7: the branches themselves fork into 1x3 and 3x1."""
    sides = fork((conv(384, (1, 3)),), (conv(384, (3, 1)),))
    return fork(
        (conv(320, 1),),
        (conv(384, 1), sides),
        (conv(448, 1), conv(384, 3), sides),
        (average_pool(), conv(192, 1)),
    )
