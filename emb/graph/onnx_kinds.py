"""Which ONNX operator is which kind, and what its attributes are called in the common vocabulary. Reads no file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from emb.graph.model import ABSENT, Option

Shape = tuple[int, ...] | None
Attributes = Mapping[str, Option]

# What differs from the operator's own name in capitals.
_KINDS = {
    "ArgMax": "ARG_MAX", "ArgMin": "ARG_MIN", "AveragePool": "AVERAGE_POOL_2D", "Concat": "CONCATENATION",
    "ConvTranspose": "TRANSPOSE_CONV", "DequantizeLinear": "DEQUANTIZE", "Dropout": "IDENTITY",
    "DynamicQuantizeLinear": "QUANTIZE", "Flatten": "RESHAPE", "Gelu": "GELU", "Gemm": "FULLY_CONNECTED",
    "GlobalAveragePool": "MEAN", "GlobalMaxPool": "REDUCE_MAX", "LRN": "LOCAL_RESPONSE_NORMALIZATION",
    "Max": "MAXIMUM", "MaxPool": "MAX_POOL_2D", "Min": "MINIMUM", "PRelu": "PRELU", "Pow": "POW",
    "QuantizeLinear": "QUANTIZE", "ReduceMax": "REDUCE_MAX", "ReduceMean": "MEAN", "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD", "ReduceSum": "SUM", "Sigmoid": "LOGISTIC", "Slice": "STRIDED_SLICE",
    "Sum": "ADD_N", "Swish": "SILU", "Unsqueeze": "EXPAND_DIMS", "Where": "SELECT_V2",
}  # fmt: skip

# Operators that carry scales and zero points among their inputs: positions of what the vocabulary keeps, and of the
# (scale, zero point) of each kept input and of the output.
_CARRY_SCALES: dict[str, tuple[str, tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, int]]] = {
    "QLinearConv": ("Conv", (0, 3, 8), ((1, 2), (4, 5)), (6, 7)),
    "QLinearMatMul": ("MatMul", (0, 3), ((1, 2), (4, 5)), (6, 7)),
    "QGemm": ("Gemm", (0, 3, 6), ((1, 2), (4, 5)), (7, 8)),
    "QLinearAdd": ("Add", (0, 3), ((1, 2), (4, 5)), (6, 7)),
    "QLinearMul": ("Mul", (0, 3), ((1, 2), (4, 5)), (6, 7)),
    "QLinearAveragePool": ("AveragePool", (0,), ((1, 2),), (3, 4)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,), ((1, 2),), (3, 4)),
    "QLinearSoftmax": ("Softmax", (0,), ((1, 2),), (3, 4)),
    "QLinearSigmoid": ("Sigmoid", (0,), ((1, 2),), (3, 4)),
    "QLinearLeakyRelu": ("LeakyRelu", (0,), ((1, 2),), (3, 4)),
    "ConvInteger": ("Conv", (0, 1), (), (-1, -1)),
    "MatMulInteger": ("MatMul", (0, 1), (), (-1, -1)),
}

INTEGER_PRODUCTS = frozenset({"QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger"})
"""Operators that multiply integers by themselves, without DequantizeLinear before them."""


def plain(native: str) -> str:
    """The float operator that a quantized one stands for: QLinearConv -> Conv."""
    return _CARRY_SCALES[native][0] if native in _CARRY_SCALES else native


def kept_positions(native: str) -> tuple[int, ...]:
    """Of a quantized operator, the positions of the inputs that its float operator takes."""
    return _CARRY_SCALES[native][1]


def kept_inputs(native: str, inputs: Sequence[int]) -> tuple[int, ...]:
    """The inputs in the vocabulary's order, without scales and zero points."""
    if native in _CARRY_SCALES:
        inputs = [inputs[i] if i < len(inputs) else ABSENT for i in kept_positions(native)]
    if plain(native) == "ConvTranspose":
        data, weights, *bias = inputs
        inputs = [ABSENT, weights, data, *bias]
    return tuple(inputs)


def scaled(native: str, inputs: Sequence[int], outputs: Sequence[int]) -> tuple[tuple[int, tuple[int, int]], ...]:
    """(tensor, (scale's tensor, zero point's tensor)) for every integer tensor whose scale the operator states."""

    def at(position: int) -> int:
        return inputs[position] if 0 <= position < len(inputs) else ABSENT

    if native == "QuantizeLinear":
        return ((outputs[0], (at(1), at(2))),)
    if native == "DequantizeLinear":
        return ((at(0), (at(1), at(2))),)
    if native not in _CARRY_SCALES:
        return ()
    _, kept, read, written = _CARRY_SCALES[native]
    of_inputs = [(at(i), (at(s), at(z))) for i, (s, z) in zip(kept, read, strict=False)]
    of_output = (outputs[0], (at(written[0]), at(written[1])))
    return tuple(pair for pair in (*of_inputs, of_output) if ABSENT not in (pair[0], pair[1][0]))


def kind_of(native: str, attributes: Attributes, shapes: Sequence[Shape], weights_constant: bool) -> str:
    """The kind of one operator. shapes: of the kept inputs; weights_constant: whether the second is a constant."""
    name = plain(native)
    weights = shapes[1] if len(shapes) > 1 else None
    if name == "Conv":
        return _convolution_kind(attributes, shapes[0] if shapes else None, weights)
    if name == "MatMul":
        return "FULLY_CONNECTED" if weights_constant and weights is not None and len(weights) == 2 else "BATCH_MATMUL"
    if name == "Resize":
        return {"nearest": "RESIZE_NEAREST_NEIGHBOR", "cubic": "RESIZE_BICUBIC"}.get(
            str(attributes.get("mode", "nearest")), "RESIZE_BILINEAR"
        )
    return _KINDS.get(name) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


def _convolution_kind(attributes: Attributes, data: Shape, weights: Shape) -> str:
    rank = len(weights) if weights is not None else 4
    if rank == 5:
        return "CONV_3D"
    groups = attributes.get("group", 1)
    channels = data[1] if data is not None and len(data) > 1 else None
    if channels is None and weights is not None and isinstance(groups, int):
        channels = weights[1] * groups
    return "DEPTHWISE_CONV_2D" if groups == channels and groups != 1 else "CONV_2D"


def options_of(
    native: str,
    attributes: Attributes,
    shapes: Sequence[Shape],
    integers: Callable[[int], tuple[int, ...] | None],
) -> dict[str, Option]:
    """Attributes under the vocabulary's names. integers(i): data of input i if it is a small integer constant."""
    options = dict(attributes)
    name = plain(native)
    if name in {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"}:
        _window(options, shapes[1] if name.startswith("Conv") and len(shapes) > 1 else None)
    elif name in {"GlobalAveragePool", "GlobalMaxPool"}:
        options |= {"axes": (2, 3), "keep_dims": True}
    elif name.startswith(("Reduce", "Arg")):
        axes = options.pop("axis", 0) if name.startswith("Arg") else options.get("axes", integers(1))
        if axes is not None:
            options["axes"] = axes if isinstance(axes, tuple) else (int(axes),)
    elif name == "Pad":
        pads = options.get("pads", integers(1))
        if isinstance(pads, tuple) and len(pads) == 8:  # N, C, H, W before, then after
            options |= {
                "padding": "EXPLICIT",
                "pads": (int(pads[2]), int(pads[3]), int(pads[6]), int(pads[7])),
            }
    return options


def _window(options: dict[str, Option], weights: Shape) -> None:
    """One spatial axis (Conv1D) is given as height 1."""

    def pair(key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        value = options.pop(key, default)
        values = tuple(int(v) for v in value) if isinstance(value, tuple) else default
        return (1, *values) if len(values) == 1 else values

    kernel = pair("kernel_shape", weights[2:] if weights is not None else ())
    if kernel:
        options["kernel"] = kernel
    ones = (1,) * len(kernel or (1, 1))
    options["stride"] = pair("strides", ones)
    options["dilation"] = pair("dilations", ones)
    if "group" in options:
        options["groups"] = options.pop("group")
    pads = options.pop("pads", ())
    automatic = str(options.pop("auto_pad", "NOTSET"))
    if automatic.startswith("SAME"):
        options["padding"] = "SAME"
    elif isinstance(pads, tuple) and any(pads):
        options["padding"] = "EXPLICIT"
        whole = tuple(int(p) for p in pads)
        options["pads"] = (0, whole[0], 0, whole[1]) if len(whole) == 2 else whole
    else:
        options["padding"] = "VALID"
