"""Six convolutions with batch normalization and dropout: what a fine-tuned CNN makes of handwritten digits.

Knows neither data nor training.
"""

from typing import TYPE_CHECKING

from emb.errors import SpecError
from emb.zoo._checks import check_classes, check_input, check_positive
from emb.zoo._pixels import raw_pixels
from emb.zoo._width import scaled

if TYPE_CHECKING:
    import keras

_MAPS = (32, 64)


# No `from __future__ import annotations` here: emb.zoo.check_arguments reads these from the signature.
def build(
    *, input_shape: tuple[int, int, int], classes: int, width: float = 1.0, units: int = 128, dropout: float = 0.4
) -> "keras.Model":
    """Two groups of 3x3, 3x3 and 5x5/2 convolutions and a hidden layer, untrained, from raw pixels to probabilities.

    Input: (batch, height, width, channels) float, 0..255.  Output: (batch, classes) float, summing to 1.
    A trained convolution of stride 2 closes each group where other networks pool. Every layer but the last has batch
    normalization. width: multiplies the 32 and 64 maps.  units: of the hidden layer.  dropout: share of values that
    are set to zero in training behind each group and before the last layer.
    For 28x28x1 and 10 classes: 28x28 -> 26 -> 24 -> 12 -> 10 -> 8 -> 4x4x64 -> 128 -> 10, 325,994 trainable
    parameters, 15.2 million MACs.

    Raises SpecError for fewer than 2 classes, images smaller than 13x13, a width that empties a layer, fewer than one
    unit or a dropout outside of [0, 1).
    Source: our own arrangement of known parts: strided convolutions for pooling from Springenberg et al. 2015,
    "Striving for simplicity", batch normalization from Ioffe and Szegedy 2015.
    """
    check_classes(classes)
    check_input("mnist-deep", input_shape, smallest=13)
    check_positive("units", units)
    if not 0 <= dropout < 1:
        raise SpecError(f"dropout must lie in [0, 1), not {dropout:g}", fix="correct model.arguments.dropout")

    from keras import Model, layers

    def convolution(x, maps, kernel, name, *, stride=1, padding="valid"):
        x = layers.Conv2D(
            maps, kernel, strides=stride, padding=padding, use_bias=False, kernel_initializer="he_normal", name=name
        )(x)
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    pixels, x = raw_pixels(input_shape)
    for group, count in enumerate(_MAPS, start=1):
        maps = scaled(count, width=width, layer=f"conv{group}_1")
        x = convolution(x, maps, 3, f"conv{group}_1")
        x = convolution(x, maps, 3, f"conv{group}_2")
        x = convolution(x, maps, 5, f"conv{group}_3", stride=2, padding="same")
        x = layers.Dropout(dropout, name=f"dropout{group}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(units, use_bias=False, kernel_initializer="he_normal", name="dense1")(x)
    x = layers.BatchNormalization(name="dense1_bn")(x)
    x = layers.ReLU(name="dense1_relu")(x)
    x = layers.Dropout(dropout, name="dropout3")(x)
    scores = layers.Dense(classes, activation="softmax", name="scores")(x)
    return Model(pixels, scores, name="mnist_deep")
