"""Predicts which operations of a .tflite file Google's Edge TPU compiler maps. Compiles nothing, knows no board.

Each limit is one function whose docstring is the sentence the user reads. The statuses are the compiler's own words.
Source: Coral, "TensorFlow models on the Edge TPU", table of supported operations; statuses and sizes from public logs
of edgetpu_compiler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from emb.errors import ModelError
from emb.graph.model import ABSENT, UNKNOWN, Graph, Operation, Tensor, constants
from emb.spec.placement import Placement

MAPPED = "Mapped to Edge TPU"
SECOND_SUBGRAPH = "More than one subgraph is not supported"
UNSUPPORTED = "Operation not supported"
DATA_TYPE = "Operation is working on an unsupported data type"
RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
UNSPECIFIED = "Operation is otherwise supported, but not mapped due to some unspecified limitation"

DEVICE = "edge-tpu"

MOST_SOFTMAX_ELEMENTS = 16_000
MEAN_CHANNELS = 4
BIAS_CHANNEL_BYTES = 8

Limit = Callable[[Graph, Operation], str]
"""What was found where the limit is not kept, else ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTpuMapping:
    """placements: of every operation, in the order of execution.

    parameter_bytes: what the mapped operations want of the on-chip cache, at least: their 8-bit constants, and 8 bytes
    for each channel of a bias. Public logs show 1.02 to 1.23 times as much.
    """

    placements: tuple[Placement, ...]
    parameter_bytes: int

    @property
    def mapped(self) -> int:
        """Number of operations that run on the Edge TPU."""
        return sum(placement.device == DEVICE for placement in self.placements)

    @property
    def first_on_cpu(self) -> Placement | None:
        """The operation that ends the Edge TPU's part, or None if all of it is mapped."""
        return next((placement for placement in self.placements if placement.device != DEVICE), None)


def predict(graph: Graph) -> EdgeTpuMapping:
    """The mapping of a .tflite graph. The first operation that is not mapped, and all behind it, run on the CPU.

    Raises ModelError for a graph of another format.
    """
    if graph.format != "tflite":
        raise ModelError(
            f"{graph.name} is no .tflite file",
            why="the Edge TPU's compiler reads nothing else",
            fix="give the int8 .tflite of the same model",
        )
    placements = []
    parameter_bytes = 0
    is_over = False
    for operation in graph.operations:
        status, detail = status_of(graph, operation)
        if status == MAPPED and is_over:
            status = SECOND_SUBGRAPH
        is_over = is_over or status != MAPPED
        parameter_bytes += 0 if is_over else _parameter_bytes(graph, operation)
        placements.append(
            Placement(
                operation=operation.name,
                kind=operation.kind,
                device="cpu" if is_over else DEVICE,
                status=status,
                detail=detail,
            )
        )
    return EdgeTpuMapping(placements=tuple(placements), parameter_bytes=parameter_bytes)


def status_of(graph: Graph, operation: Operation) -> tuple[str, str]:
    """(the compiler's status, what was found) of one operation by itself, wherever it stands."""
    if operation.kind not in LIMITS:
        return UNSUPPORTED, ""
    for status, limit in (
        (DATA_TYPE, eight_bit_tensors),
        (RANK, three_inner_dimensions),
        *((UNSPECIFIED, limit) for limit in (static_shapes, *LIMITS[operation.kind])),
    ):
        if found := limit(graph, operation):
            return status, f"{sentence(limit)}: {found}"
    return MAPPED, ""


def sentence(limit: Limit) -> str:
    """What the limit asks for, as its docstring says it."""
    return (limit.__doc__ or "").strip().split("\n")[0]


def eight_bit_tensors(graph: Graph, operation: Operation) -> str:
    """Activations and weights must be int8 or uint8"""
    bad = [tensor for tensor in _valued(graph, operation) if tensor.dtype not in ("int8", "uint8")]
    return f"{bad[0].name} is {bad[0].dtype}" if bad else ""


def three_inner_dimensions(graph: Graph, operation: Operation) -> str:
    """Only the three innermost dimensions of a tensor may be larger than 1"""
    for tensor in _activations(graph, operation):
        if tensor.shape is not None and math.prod(tensor.shape[:-3]) != 1:
            return f"{tensor.name} is {_extents(tensor)}"
    return ""


def static_shapes(graph: Graph, operation: Operation) -> str:
    """Every shape must be known when the model is compiled"""
    for tensor in _activations(graph, operation):
        if tensor.shape is None or UNKNOWN in tensor.shape:
            return f"{tensor.name} has an open shape"
    return ""


def no_fused_activation(graph: Graph, operation: Operation) -> str:
    """A pooling or concatenation must not have a fused activation"""
    return str(operation.options.get("activation", ""))


def equal_dilation(graph: Graph, operation: Operation) -> str:
    """A convolution must have the same dilation in both directions"""
    height, width = operation.pair("dilation")
    return f"{height} and {width}" if height != width else ""


def one_group(graph: Graph, operation: Operation) -> str:
    """A convolution in groups is not known to be mapped: split it into one convolution for each group"""
    groups = operation.options.get("groups", 1)
    return f"{groups} groups" if groups != 1 else ""


def constant_weights(graph: Graph, operation: Operation) -> str:
    """Weights and biases must be constants of the file"""
    fixed = constants(graph)
    flowing = [index for index in operation.inputs[1:] if index not in fixed | {ABSENT}]
    return f"{graph.tensors[flowing[0]].name} is computed" if flowing else ""


def zeros_beside_one_input(graph: Graph, operation: Operation) -> str:
    """A concatenation with a constant must have two inputs, and the constant must be all zeros"""
    fixed = constants(graph)
    held = [index for index in operation.inputs if index in fixed]
    if not held:
        return ""
    # What a constant holds is not in the graph, so that zeros are not told from other numbers.
    return f"{len(operation.inputs)} inputs, {graph.tensors[held[0]].name} is constant"


def default_weights_format(graph: Graph, operation: Operation) -> str:
    """A dense layer's weights must be stored in the default format"""
    stored = operation.options.get("weights_format", 0)
    return f"format {stored}" if stored else ""


def one_dimensional_output(graph: Graph, operation: Operation) -> str:
    """A dense layer's or softmax's output must have one dimension"""
    output = graph.tensors[operation.outputs[0]]
    return _extents(output) if output.shape is not None and math.prod(output.shape[:-1]) != 1 else ""


def softmax_of_16000(graph: Graph, operation: Operation) -> str:
    """A softmax must have 16,000 elements at most"""
    elements = graph.tensors[operation.outputs[0]].elements or 0
    return f"{elements:,} elements" if elements > MOST_SOFTMAX_ELEMENTS else ""


def batch_untouched(graph: Graph, operation: Operation) -> str:
    """The batch must be left alone: not padded, packed, reduced or taken apart"""
    data, output = graph.tensors[operation.inputs[0]], graph.tensors[operation.outputs[0]]
    axes = operation.options.get("axes", ())
    if isinstance(axes, tuple) and 0 in axes:
        return "it reduces the axis 0"
    before, after = (data.shape or ())[:1], (output.shape or ())[:1]
    return f"{before[0]} becomes {after[0]}" if before and after and before != after else ""


def mean_of_four_channels(graph: Graph, operation: Operation) -> str:
    """A mean over the channels needs a number of channels that divides by 4"""
    data = graph.tensors[operation.inputs[0]]
    axes = operation.options.get("axes", ())
    if (
        data.shape is None
        or not isinstance(axes, tuple)
        or len(data.shape) - 1 not in {int(axis) % len(data.shape) for axis in axes}
    ):
        return ""
    return f"{data.shape[-1]} channels" if data.shape[-1] % MEAN_CHANNELS else ""


def leading_ones_only(graph: Graph, operation: Operation) -> str:
    """A squeeze may take away leading extents of 1 only"""
    data, output = graph.tensors[operation.inputs[0]], graph.tensors[operation.outputs[0]]
    if data.shape is None or output.shape is None:
        return ""
    removed = len(data.shape) - len(output.shape)
    return "" if data.shape[removed:] == output.shape else f"{_extents(data)} becomes {_extents(output)}"


def plain_slices(graph: Graph, operation: Operation) -> str:
    """A strided slice must have a stride of 1, and no ellipsis or new axis"""
    masks = [name for name in ("ellipsis_mask", "new_axis_mask") if operation.options.get(name)]
    strides = operation.options.get("strides")
    if masks:
        return masks[0]
    return "" if isinstance(strides, tuple) and set(strides) == {1} else f"strides {strides}"


def one_dimensional_alpha(graph: Graph, operation: Operation) -> str:
    """A PReLU's slopes may differ from channel to channel only"""
    alpha = graph.tensors[operation.inputs[1]]
    return _extents(alpha) if alpha.shape is not None and math.prod(alpha.shape[:-1]) != 1 else ""


_FREE: tuple[Limit, ...] = ()
_CONVOLUTION: tuple[Limit, ...] = (equal_dilation, one_group, constant_weights)
_POOLING: tuple[Limit, ...] = (no_fused_activation,)
_OVER_AXES: tuple[Limit, ...] = (batch_untouched,)

LIMITS: Mapping[str, tuple[Limit, ...]] = {
    **dict.fromkeys(("LOGISTIC", "RELU", "RELU6", "RELU_N1_TO_1", "TANH"), _FREE),
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"), _FREE),
    **dict.fromkeys(("L2_NORMALIZATION", "RESHAPE", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "QUANTIZE"), _FREE),
    **dict.fromkeys(("EXPAND_DIMS", "UNIDIRECTIONAL_SEQUENCE_LSTM"), _FREE),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _FREE),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _CONVOLUTION),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _POOLING),
    **dict.fromkeys(("PAD", "PACK", "REDUCE_MAX", "REDUCE_MIN"), _OVER_AXES),
    "CONCATENATION": (no_fused_activation, zeros_beside_one_input),
    "FULLY_CONNECTED": (default_weights_format, one_dimensional_output, constant_weights),
    "MEAN": (batch_untouched, mean_of_four_channels),
    "SOFTMAX": (one_dimensional_output, softmax_of_16000),
    "SQUEEZE": (leading_ones_only,),
    "STRIDED_SLICE": (plain_slices,),
    "PRELU": (one_dimensional_alpha,),
}
"""Limits of every kind that the compiler maps, beside those of all kinds."""


def _parameter_bytes(graph: Graph, operation: Operation) -> int:
    held = [graph.tensors[index] for index in operation.inputs if index != ABSENT and graph.tensors[index].constant]
    values = sum(tensor.storage_bytes or 0 for tensor in held if tensor.dtype in ("int8", "uint8"))
    biased = [graph.tensors[index] for index in operation.inputs[2:3] if index != ABSENT]
    return values + BIAS_CHANNEL_BYTES * sum(tensor.elements or 0 for tensor in biased if tensor.dtype == "int32")


def _activations(graph: Graph, operation: Operation) -> Iterator[Tensor]:
    for index in (*operation.inputs, *operation.outputs):
        if index != ABSENT and not graph.tensors[index].constant:
            yield graph.tensors[index]


def _valued(graph: Graph, operation: Operation) -> Iterator[Tensor]:
    """Tensors that hold values of the network, not shapes, axes or biases: constants that are int32 or int64."""
    for index in (*operation.inputs, *operation.outputs):
        if index != ABSENT:
            tensor = graph.tensors[index]
            if not (tensor.constant and tensor.dtype in ("int32", "int64")):
                yield tensor


def _extents(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape or ()))
