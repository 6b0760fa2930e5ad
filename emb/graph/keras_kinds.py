"""Which Keras layer is which kind, and what its settings are called in the common vocabulary. Imports no Keras."""

from __future__ import annotations

import re
from typing import Any

from emb.graph.model import Layout, Option

# What differs from the class's own name in capitals. A subclass counts as its base class does.
_KINDS = {
    "AveragePooling1D": "AVERAGE_POOL_2D", "AveragePooling2D": "AVERAGE_POOL_2D", "ChannelReLU": "MAXIMUM",
    "ChannelSplit": "SPLIT",
    "Concatenate": "CONCATENATION",
    "Conv1D": "CONV_2D", "Conv2D": "CONV_2D", "Conv2DTranspose": "TRANSPOSE_CONV", "Conv3D": "CONV_3D",
    "Cropping2D": "STRIDED_SLICE", "Dense": "FULLY_CONNECTED", "DepthwiseConv2D": "DEPTHWISE_CONV_2D",
    "Divide": "DIV", "ELU": "ELU", "Embedding": "GATHER", "Flatten": "RESHAPE", "GetItem": "STRIDED_SLICE",
    "GlobalAveragePooling2D": "MEAN", "GlobalMaxPooling2D": "REDUCE_MAX", "L2Pooling2D": "L2_POOL_2D",
    "LeakyReLU": "LEAKY_RELU",
    "MaxPooling1D": "MAX_POOL_2D", "MaxPooling2D": "MAX_POOL_2D", "Multiply": "MUL", "PReLU": "PRELU",
    "Permute": "TRANSPOSE", "Pad": "PAD", "Rescaling": "RESCALING", "Reshape": "RESHAPE", "Sigmoid": "LOGISTIC",
    "Subtract": "SUB", "Transpose": "TRANSPOSE", "TrueDivide": "DIV", "ZeroPadding2D": "PAD",
    # without effect once the model is trained
    "ActivityRegularization": "IDENTITY", "AlphaDropout": "IDENTITY", "Dropout": "IDENTITY",
    "GaussianDropout": "IDENTITY", "GaussianNoise": "IDENTITY", "SpatialDropout1D": "IDENTITY",
    "SpatialDropout2D": "IDENTITY",
}  # fmt: skip
_FUNCTIONS = {
    "linear": "IDENTITY",
    "sigmoid": "LOGISTIC",
    "swish": "SILU",
    "leaky_relu": "LEAKY_RELU",
    "hard_silu": "HARD_SWISH",
}
_INTERPOLATIONS = {
    "nearest": "RESIZE_NEAREST_NEIGHBOR",
    "bilinear": "RESIZE_BILINEAR",
    "bicubic": "RESIZE_BICUBIC",
}


def kind_of(layer: Any) -> str:
    """The kind of a layer, or of a keras.ops operation in a functional model."""
    bases = [cls.__name__ for cls in type(layer).__mro__]
    if "Activation" in bases:
        return _function_kind(layer.activation)
    if "ReLU" in bases:
        return _rectifier_kind(layer)
    if "UpSampling2D" in bases or "Resizing" in bases:
        return _INTERPOLATIONS.get(str(layer.interpolation), "RESIZE_" + str(layer.interpolation).upper())
    for name in bases:
        if name in _KINDS:
            return _KINDS[name]
    return _capitals(type(layer).__name__)


def options_of(layer: Any, kind: str, *, layout: Layout) -> dict[str, Option]:
    """The layer's settings under the vocabulary's names."""
    options: dict[str, Option] = {}
    for option, attributes in {
        "kernel": ("kernel_size", "pool_size"),
        "stride": ("strides",),
        "dilation": ("dilation_rate",),
    }.items():
        for attribute in attributes:
            if hasattr(layer, attribute):
                options[option] = _pair(getattr(layer, attribute))
    padding = getattr(layer, "padding", None)
    if isinstance(padding, str):
        options["padding"] = padding.upper()
    elif kind == "PAD" and isinstance(padding, tuple) and len(padding) == 2:
        (top, bottom), (left, right) = padding
        options |= {"padding": "EXPLICIT", "pads": (int(top), int(left), int(bottom), int(right))}
    if kind == "LOCAL_RESPONSE_NORMALIZATION" and getattr(layer, "across", "") == "space":
        options["kernel"] = (2 * layer.depth_radius + 1,) * 2
    if kind == "CONV_2D" and hasattr(layer, "groups"):
        options["groups"] = int(layer.groups)
    if kind in {"MEAN", "REDUCE_MAX"} and hasattr(layer, "keepdims"):
        axes = getattr(layer, "axis", None) if not hasattr(layer, "data_format") else None
        options["axes"] = _axes(axes) or ((1, 2) if layout == "NHWC" else (2, 3))
        options["keep_dims"] = bool(layer.keepdims)
    function = getattr(layer, "activation", None)
    if function is not None and type(layer).__name__ != "Activation":
        fused = _function_kind(function)
        if fused != "IDENTITY":
            options["activation"] = fused
    return options


def _pair(value: Any) -> tuple[int, int]:
    """One spatial axis (Conv1D) is given as height 1."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return (1, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


def _axes(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(int(axis) for axis in value)


def _function_kind(function: Any) -> str:
    if hasattr(function, "get_config"):  # a layer used as an activation function
        return kind_of(function)
    name = str(getattr(function, "__name__", type(function).__name__))
    return _FUNCTIONS.get(name, name.upper())


def _rectifier_kind(layer: Any) -> str:
    if getattr(layer, "negative_slope", 0):
        return "LEAKY_RELU"
    highest = getattr(layer, "max_value", None)
    if highest is None:
        return "RELU"
    return "RELU6" if highest == 6 else "CLIP"


def _capitals(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()
