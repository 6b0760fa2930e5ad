"""The beginning that ResNet and DenseNet share: how much of the image's size goes before the first block.

Knows nothing of the blocks.
"""

from __future__ import annotations

from typing import Any

from emb.zoo._residual import Style, convolution, normalized, rectified
from emb.zoo._stem import Stem

_SENTENCES = {
    "full": "7x7 convolution with stride 2, then 3x3 max pooling with stride 2: as published, for 128 pixels or more",
    "half": "7x7 convolution with stride 2, no pooling: images of 48 to 127 pixels keep half of their size",
    "none": "3x3 convolution with stride 1, no pooling: images below 48 pixels keep their size",
}


def sentence(kind: Stem) -> str:
    """The beginning in words, with the sizes it is for."""
    return _SENTENCES[kind]


def begin(x: Any, filters: int, *, kind: Stem, style: Style) -> Any:
    """The rescaled pixels, convolved, normalized, rectified and with "full" pooled.

    x: (batch, height, width, any) float. Returns (batch, height / n, width / n, filters), n = 4, 2 or 1, rounded up.
    Rows and columns are padded alike on both sides, as Caffe does it, where Keras's "same" pads one more at the end.
    Source: He et al. 2015, table 1; Huang et al. 2017, table 1.
    """
    from keras import layers

    if kind == "none":
        x = convolution(x, filters, 3, style=style, name="conv1")
        return rectified(normalized(x, style=style, name="conv1_bn"), name="conv1_relu")
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = convolution(x, filters, 7, stride=2, padding="valid", style=style, name="conv1")
    x = rectified(normalized(x, style=style, name="conv1_bn"), name="conv1_relu")
    if kind == "half":
        return x
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="pool1")(x)
