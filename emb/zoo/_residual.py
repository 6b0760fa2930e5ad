"""What residual networks are made of: convolution with batch normalization, and the two kinds of blocks.

Knows neither depths nor beginnings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from emb.zoo._normalization import batch_normalized

Shortcut = Literal["projection", "identity", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What all blocks of one network share.

    shortcut: what bridges a block whose shape changes: a 1x1 convolution, the input subsampled and filled up with
    channels of zeros, or nothing; with "none" no other block is bridged either.
    epsilon: of the batch normalizations.  biased: convolutions have biases, and projections no batch normalization.
    residual_scale: what the scales of each block's last normalization begin with.
    """

    shortcut: Shortcut
    epsilon: float
    biased: bool = False
    residual_scale: float = 1.0


Block = Callable[..., Any]


def convolution(
    x: Any, filters: int, kernel: int, *, style: Style, name: str, stride: int = 1, padding: str = "same"
) -> Any:
    """A convolution without activation; weights drawn as by He et al. 2015, "Delving deep into rectifiers"."""
    from keras import layers

    return layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding=padding,
        use_bias=style.biased,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def normalized(x: Any, *, style: Style, name: str, first_scale: float = 1.0) -> Any:
    """A batch normalization of the channels. first_scale: what its learned scales begin with."""
    return batch_normalized(x, epsilon=style.epsilon, name=name, first_scale=first_scale)


def rectified(x: Any, *, name: str) -> Any:
    """max(x, 0)."""
    from keras import layers

    return layers.Activation("relu", name=name)(x)


def basic(x: Any, channels: int, *, stride: int, style: Style, name: str) -> Any:
    """Two 3x3 convolutions, the first with the stride, and the shortcut around them.

    x: (batch, height, width, any) float. Returns (batch, height / stride, width / stride, channels), rounded up.
    Source: He et al. 2015, "Deep residual learning for image recognition", figure 5, left.
    """
    bridge = _bridge(x, channels, stride=stride, style=style, name=name)
    x = convolution(x, channels, 3, stride=stride, style=style, name=f"{name}_conv1")
    x = rectified(normalized(x, style=style, name=f"{name}_bn1"), name=f"{name}_relu1")
    x = convolution(x, channels, 3, style=style, name=f"{name}_conv2")
    x = normalized(x, style=style, name=f"{name}_bn2", first_scale=style.residual_scale)
    return _joined(bridge, x, name=name)


def bottleneck(x: Any, channels: int, *, stride: int, style: Style, name: str) -> Any:
    """1x1 down to a quarter of the channels, 3x3, 1x1 up again, and the shortcut around them.

    x: (batch, height, width, any) float. Returns (batch, height / stride, width / stride, channels), rounded up.
    The stride stands in the first 1x1, as in the paper's own Caffe files; others have it in the 3x3 ("v1.5").
    Source: He et al. 2015, "Deep residual learning for image recognition", figure 5, right.
    """
    bridge = _bridge(x, channels, stride=stride, style=style, name=name)
    x = convolution(x, channels // 4, 1, stride=stride, style=style, name=f"{name}_conv1")
    x = rectified(normalized(x, style=style, name=f"{name}_bn1"), name=f"{name}_relu1")
    x = convolution(x, channels // 4, 3, style=style, name=f"{name}_conv2")
    x = rectified(normalized(x, style=style, name=f"{name}_bn2"), name=f"{name}_relu2")
    x = convolution(x, channels, 1, style=style, name=f"{name}_conv3")
    x = normalized(x, style=style, name=f"{name}_bn3", first_scale=style.residual_scale)
    return _joined(bridge, x, name=name)


def _joined(bridge: Any, x: Any, *, name: str) -> Any:
    from keras import layers

    if bridge is not None:
        x = layers.Add(name=f"{name}_add")([bridge, x])
    return rectified(x, name=f"{name}_relu")


def _bridge(x: Any, channels: int, *, stride: int, style: Style, name: str) -> Any:
    """What is added to a block's output, or None."""
    if style.shortcut == "none":
        return None
    if stride == 1 and x.shape[-1] == channels:
        return x
    if style.shortcut == "identity":
        return _filled_up(x, channels, stride=stride, name=name)
    x = convolution(x, channels, 1, stride=stride, style=style, name=f"{name}_shortcut")
    return x if style.biased else normalized(x, style=style, name=f"{name}_shortcut_bn")


def _filled_up(x: Any, channels: int, *, stride: int, name: str) -> Any:
    """Every stride-th pixel, and zeros for the channels that are new: no parameters ("option A")."""
    from keras import layers

    from emb.layers import ChannelPadding

    if stride > 1:
        x = layers.MaxPooling2D(1, strides=stride, name=f"{name}_subsample")(x)
    new = channels - x.shape[-1]
    return ChannelPadding(new, name=f"{name}_fill")(x) if new else x
