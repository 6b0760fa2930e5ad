"""Small networks that hold what the classic ones are made of, with weights from a fixed seed. Trained on nothing.

Each takes raw pixels and returns 10 probabilities (`logits` returns logits).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def lenet(x: Any) -> Any:
    from keras import layers

    x = layers.Rescaling(1 / 255, name="rescale")(x)
    x = layers.Conv2D(6, 5, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(16, 5, activation="relu", name="conv2")(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(32, activation="relu", name="dense1")(x)
    return layers.Dense(10, activation="softmax", name="scores")(x)


def batch_norm(x: Any) -> Any:
    from keras import layers

    x = layers.Rescaling(1 / 255)(x)
    for maps, strides in ((8, 1), (16, 2)):
        x = layers.Conv2D(maps, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(10, activation="softmax")(x)


def residual(x: Any) -> Any:
    from keras import layers

    x = layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = layers.Conv2D(8, 3, activation="relu")(x)
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    y = layers.Conv2D(8, 3, padding="same")(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.AveragePooling2D(2)(x)
    return layers.Dense(10, activation="softmax")(layers.Flatten()(x))


def inception(x: Any) -> Any:
    from keras import layers

    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(8, 3, activation="relu")(x)
    one = layers.Conv2D(4, 1, activation="relu")(x)
    three = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    pooled = layers.Conv2D(4, 1, activation="relu")(layers.MaxPooling2D(3, 1, "same")(x))
    x = layers.Concatenate()([one, three, pooled])
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(10, activation="softmax")(x)


def mobile(x: Any) -> Any:
    """Its first convolution pads, and its Rescaling moves: not to be folded."""
    from keras import layers

    x = layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.BatchNormalization()(layers.Conv2D(16, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Conv2D(10, 1)(layers.Dropout(0.2)(x))
    return layers.Softmax()(layers.Flatten()(x))


def pre_activation(x: Any) -> Any:
    """As in DenseNet: of two BatchNormalizations before ReLU, an unpadded convolution takes in one but for a limit."""
    from keras import layers

    x = layers.Rescaling(1 / 255)(x)
    x = layers.MaxPooling2D(2)(layers.Conv2D(8, 3, padding="same")(x))
    y = layers.Conv2D(12, 1, use_bias=False)(layers.ReLU()(layers.BatchNormalization()(x)))
    y = layers.ReLU()(layers.BatchNormalization()(y))
    x = layers.Concatenate()([x, layers.Conv2D(8, 3, padding="same")(y)])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))


def leaky(x: Any) -> Any:
    """Operations that TFLite computes in integers and ai-edge-quantizer does not know."""
    from keras import layers

    x = layers.Rescaling(1 / 255)(x)
    x = layers.LeakyReLU()(layers.Conv2D(8, 3)(x))
    x = layers.Conv2D(8, 3, activation="relu")(x)
    return layers.Dense(10, activation="softmax")(layers.GlobalMaxPooling2D()(x))


def logits(x: Any) -> Any:
    from keras import layers

    x = layers.RandomFlip()(x)
    x = layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[2500.0, 3000.0, 3500.0])(x)
    x = layers.Conv2D(8, 3, activation="tanh")(layers.SpatialDropout2D(0.1)(x))
    return layers.Dense(10)(layers.Flatten()(layers.AveragePooling2D(2)(x)))


def two_groups(x: Any) -> Any:
    """As AlexNet: grouped convolutions, LRN behind ReLU, overlapping pooling, dropout before dense layers."""
    from keras import layers

    from emb.layers import LocalResponseNormalization

    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(16, 3, activation="relu")(x)
    x = LocalResponseNormalization(2, k=2.0, alpha=0.5, beta=0.75)(x)
    x = layers.MaxPooling2D(3, 2)(x)
    x = layers.Conv2D(16, 3, padding="same", groups=2, activation="relu")(x)
    x = layers.Conv2D(12, 3, groups=4, strides=2, use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dense(16, activation="relu")(layers.Dropout(0.5)(layers.Flatten()(x)))
    return layers.Dense(10, activation="softmax")(layers.Dropout(0.5)(x))


def batch_norm_everywhere(x: Any) -> Any:
    """BatchNormalization behind a bias, a grouped, a dilated and a depthwise convolution, a dense layer; before 1x1."""
    from keras import layers

    x = layers.Rescaling(1 / 255)(x)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3)(x)))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, groups=4, use_bias=False)(x)))
    x = layers.Conv2D(16, 3, padding="same", dilation_rate=2)(x)
    x = layers.MaxPooling2D(2)(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=2)(x)))
    x = layers.Conv2D(8, 1, padding="same")(layers.BatchNormalization()(x))
    x = layers.BatchNormalization()(layers.Dense(16, use_bias=False)(layers.Flatten()(x)))
    return layers.Dense(10, activation="softmax")(layers.ReLU()(x))


def bottleneck(x: Any) -> Any:
    """As ResNet-50: explicit zero padding, a projection, addition behind BatchNormalization."""
    from keras import layers

    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(16, 3, strides=2, use_bias=False)(layers.ZeroPadding2D(1)(x))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    y = x
    for maps, side in ((8, 1), (8, 3), (32, 1)):
        y = layers.BatchNormalization()(layers.Conv2D(maps, side, padding="same", use_bias=False)(y))
        y = layers.ReLU()(y) if maps == 8 else y
    x = layers.BatchNormalization()(layers.Conv2D(32, 1, use_bias=False)(x))
    x = layers.ReLU()(layers.Add()([x, y]))
    return layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))


NETWORKS: dict[str, Callable[[Any], Any]] = {
    network.__name__: network
    for network in (
        *(lenet, batch_norm, residual, inception, mobile, pre_activation, leaky, logits),
        *(two_groups, batch_norm_everywhere, bottleneck),
    )
}


def build(name: str) -> Any:
    """The network on 28x28x1 (lenet) or 16x16x3 images."""
    import keras

    keras.utils.set_random_seed(1)
    image = keras.Input((28, 28, 1) if name == "lenet" else (16, 16, 3), name="pixels")
    model = keras.Model(image, NETWORKS[name](image), name=name)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.gamma.shape[0]
            gamma, variance = rng.uniform(0.5, 1.5, count), rng.uniform(0.3, 1.2, count)
            layer.set_weights([gamma, rng.normal(0, 0.2, count), rng.normal(0, 0.3, count), variance])
        elif getattr(layer, "use_bias", False):
            layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
    return model


def images(name: str, count: int) -> NDArray[np.uint8]:
    """(count, height, width, channels) raw pixels: patches of colour with noise."""
    rng = np.random.default_rng(7)
    side, channels = (28, 1) if name == "lenet" else (16, 3)
    patches = rng.integers(0, 256, (count, 4, 4, channels)).repeat(side // 4, 1).repeat(side // 4, 2)
    noisy = patches + rng.integers(-20, 21, (count, side, side, channels))
    noisy[0].flat[:2] = 0, 255
    return np.clip(noisy, 0, 255).astype(np.uint8)
