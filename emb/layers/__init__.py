"""Layers that Keras lacks, of the classic CNNs and of integer graphs; registered, so that files that hold them load.

Written with keras.ops alone, in operations that every exported format has. Knows no architecture.
Importing this package imports keras and registers them all.
"""

from emb.layers.channel_padding import ChannelPadding
from emb.layers.channel_relu import ChannelReLU
from emb.layers.channel_split import ChannelSplit
from emb.layers.fake_quantization import (
    FakeQuantization,
    QuantizedBatchNormalization,
    QuantizedChannelReLU,
    QuantizedConv2D,
    QuantizedDense,
    QuantizedDepthwiseConv2D,
)
from emb.layers.grouped_convolution import GroupedConv2D
from emb.layers.l2_pooling import L2Pooling2D
from emb.layers.local_response_norm import LocalResponseNormalization

__all__ = [
    "ChannelPadding",
    "ChannelReLU",
    "ChannelSplit",
    "FakeQuantization",
    "GroupedConv2D",
    "L2Pooling2D",
    "LocalResponseNormalization",
    "QuantizedBatchNormalization",
    "QuantizedChannelReLU",
    "QuantizedConv2D",
    "QuantizedDense",
    "QuantizedDepthwiseConv2D",
]
