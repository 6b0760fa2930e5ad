"""LeNet: two 5x5 convolutions, each with 2x2 pooling, then dense layers; as LeNet-5 or as Caffe's wider version.

Knows neither data nor training.
"""

from typing import TYPE_CHECKING, Literal, get_args

from emb.zoo._checks import check_choice, check_classes, check_input
from emb.zoo._width import scaled

if TYPE_CHECKING:
    import keras

# No `from __future__ import annotations` here: emb.zoo.check_arguments reads these from the signature.
Variant = Literal["lenet5", "caffe"]
Activation = Literal["relu", "tanh"]
Pooling = Literal["max", "average"]

_MAPS = {"lenet5": (6, 16), "caffe": (20, 50)}
_UNITS = {"lenet5": (120, 84), "caffe": (500,)}
# LeNet-5 was drawn for 32x32; 28x28 images get there by zeros around them, which is "same" padding.
_FIRST_PADDING = {"lenet5": "same", "caffe": "valid"}
_SMALLEST = {"lenet5": 12, "caffe": 16}


def build(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    variant: Variant = "lenet5",
    activation: Activation = "relu",
    pooling: Pooling = "max",
    width: float = 1.0,
) -> "keras.Model":
    """LeNet for (height, width, channels) images, an untrained model from raw pixels to class probabilities.

    Input: (batch, height, width, channels) float, 0..255.  Output: (batch, classes) float, summing to 1.
    variant: "lenet5" has 6 and 16 maps and dense layers of 120 and 84, 61,706 parameters for 28x28x1 and 10
    classes; "caffe" has 20 and 50 maps and one dense layer of 500, 431,080 parameters.
    activation="tanh", pooling="average" is the network of 1998, but for its trained pooling coefficients, its
    partly connected second convolution and its radial basis output.  width: multiplies all maps and units.

    Raises SpecError for fewer than 2 classes, images smaller than 12x12 (caffe: 16x16), an unknown choice, or a width
    that leaves a layer without maps.
    Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", section II.B, where
    padding, maps and units come from; Caffe's examples/mnist/lenet_train_test.prototxt for "caffe".
    """
    check_choice("variant", variant, get_args(Variant))
    check_choice("activation", activation, get_args(Activation))
    check_choice("pooling", pooling, get_args(Pooling))
    check_classes(classes)
    check_input(f"lenet ({variant})", input_shape, smallest=_SMALLEST[variant])

    import keras
    from keras import layers

    pool = layers.MaxPooling2D if pooling == "max" else layers.AveragePooling2D
    first, second = (scaled(maps, width=width, layer=f"conv{n}") for n, maps in enumerate(_MAPS[variant], start=1))
    pixels = keras.Input(shape=tuple(input_shape), name="pixels")
    x = layers.Rescaling(1 / 255, name="rescale")(pixels)
    x = layers.Conv2D(first, 5, padding=_FIRST_PADDING[variant], activation=activation, name="conv1")(x)
    x = pool(2, name="pool1")(x)
    x = layers.Conv2D(second, 5, activation=activation, name="conv2")(x)
    x = pool(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    for number, units in enumerate(_UNITS[variant], start=1):
        name = f"dense{number}"
        x = layers.Dense(scaled(units, width=width, layer=name), activation=activation, name=name)(x)
    scores = layers.Dense(classes, activation="softmax", name="scores")(x)
    return keras.Model(pixels, scores, name="lenet")
