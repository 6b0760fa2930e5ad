"""Layers of the classic CNNs that Keras lacks; registered, so that a .keras file that holds them loads anywhere in emb.

Written with keras.ops alone, in operations that every exported format has. Knows no architecture.
Importing this package imports keras and registers them all.
"""

from emb.layers.channel_padding import ChannelPadding
from emb.layers.channel_split import ChannelSplit
from emb.layers.grouped_convolution import GroupedConv2D
from emb.layers.l2_pooling import L2Pooling2D
from emb.layers.local_response_norm import LocalResponseNormalization

__all__ = ["ChannelPadding", "ChannelSplit", "GroupedConv2D", "L2Pooling2D", "LocalResponseNormalization"]
