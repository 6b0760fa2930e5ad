"""The multi-layer perceptron: dense layers alone, as many as one likes; shallow against deep.

Knows neither data nor training.
"""

from typing import TYPE_CHECKING, Literal, get_args

from emb.zoo._checks import check_choice, check_classes, check_input, check_positive
from emb.zoo._pixels import Preprocessing, raw_pixels
from emb.zoo._width import scaled

if TYPE_CHECKING:
    import keras

# No `from __future__ import annotations` here: emb.zoo.check_arguments reads these from the signature.
Activation = Literal["relu", "sigmoid", "tanh"]


def build(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    depth: int = 1,
    units: int = 100,
    activation: Activation = "relu",
    width: float = 1.0,
    preprocessing: Preprocessing = "unit",
) -> "keras.Model":
    """Hidden dense layers of one size, an untrained model from raw pixels to class probabilities.

    Input: (batch, height, width, channels) float, 0..255.  Output: (batch, classes) float, summing to 1.
    depth: number of hidden layers; 1 is the shallow network.  units: of each of them.  width: multiplies the units.
    activation: weights start as suits it, by He et al. 2015 for "relu", by Glorot and Bengio 2010 for the others,
    with which the gradients of deep networks vanish.
    For 28x28x1 images, 10 classes and the defaults 79,510 parameters.

    Raises SpecError for fewer than 2 classes, fewer than one layer or unit, an unknown activation, or a width that
    leaves the layers without units.
    Source: W. Jiang, "Machine Learning for Embedded Systems", lecture 3, "shallow vs deep neural networks"; Nielsen
    2015, "Neural networks and deep learning", chapter 5.
    """
    check_choice("activation", activation, get_args(Activation))
    check_positive("depth", depth)
    check_positive("units", units)
    check_classes(classes)
    check_input("mlp", input_shape, smallest=1)

    import keras
    from keras import layers

    initializer = "he_normal" if activation == "relu" else "glorot_uniform"
    pixels, x = raw_pixels(input_shape, preprocessing)
    x = layers.Flatten(name="flatten")(x)
    for number in range(1, depth + 1):
        count = scaled(units, width=width, layer=f"dense{number}")
        x = layers.Dense(count, activation=activation, kernel_initializer=initializer, name=f"dense{number}")(x)
    scores = layers.Dense(classes, activation="softmax", name="scores")(x)
    return keras.Model(pixels, scores, name="mlp")
