"""The smallest practical CNN: one convolution of 20 5x5 kernels, 2x2 max pooling, one hidden dense layer.

Knows neither data nor training.
"""

from typing import TYPE_CHECKING

from emb.zoo._checks import check_classes, check_input, check_positive

if TYPE_CHECKING:
    import keras


# No `from __future__ import annotations` here: emb.zoo.check_arguments reads these from the signature.
def build(*, input_shape: tuple[int, int, int], classes: int, kernels: int = 20, units: int = 100) -> "keras.Model":
    """One convolution and one hidden layer, an untrained model from raw pixels to class probabilities.

    Input: (batch, height, width, channels) float, 0..255.  Output: (batch, classes) float, summing to 1.
    kernels: feature maps of the convolution.  units: of the hidden dense layer. For 28x28x1 images, 10 classes
    and the defaults: 28x28 -> 20 maps of 24x24 -> 12x12 -> 100 -> 10, 289,630 parameters.

    Raises SpecError for fewer than 2 classes, images smaller than 6x6, or fewer than one kernel or unit.
    Source: W. Jiang, "Machine Learning for Embedded Systems", lecture 3, "a practical CNN"; Nielsen 2015,
    "Neural networks and deep learning", chapter 6.
    """
    check_classes(classes)
    check_input("mnist-cnn", input_shape, smallest=6)
    check_positive("kernels", kernels)
    check_positive("units", units)

    import keras
    from keras import layers

    pixels = keras.Input(shape=tuple(input_shape), name="pixels")
    x = layers.Rescaling(1 / 255, name="rescale")(pixels)
    x = layers.Conv2D(kernels, 5, activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(units, activation="relu", name="dense1")(x)
    scores = layers.Dense(classes, activation="softmax", name="scores")(x)
    return keras.Model(pixels, scores, name="mnist_cnn")
