"""The receptive field of every operation. Knows the geometry of kernels and strides, and nothing of weights.

Per axis, with the field r and the jump j of the input, a kernel of k taps with dilation d and stride s gives
  r' = r + (k - 1) * d * j        j' = j * s
(Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019). Where branches
meet, the larger field and the larger jump count. The field may exceed the image: padding lies inside of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from emb.graph.model import ABSENT, UNKNOWN, Graph, Operation, constants, data_input
from emb.graph.vocabulary import (
    CONVOLUTIONS,
    POOLINGS,
    POSITIONWISE,
    REDUCTIONS,
    RESAMPLINGS,
    TRANSPOSED_CONVOLUTIONS,
)

Axes = tuple[Fraction, Fraction]
Grid = tuple[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """(height, width) each. pixels: extent of the input that one output value depends on.

    jump: distance in input pixels between two neighbouring output positions; below 1 after upsampling.
    """

    pixels: Axes
    jump: Axes


@dataclass(frozen=True, slots=True)
class _State:
    """A field, and the grid of positions that the tensor had when it last had height and width."""

    field: Field
    grid: Grid


_ONE = (Fraction(1), Fraction(1))


def receptive_fields(graph: Graph) -> tuple[Field | None, ...]:
    """The field of each operation's output, or None where it is unknown (and so for all that depends on it).

    An operation on constants alone has none either.
    """
    fixed = constants(graph)
    states: dict[int, _State | None] = {
        tensor: _State(Field(pixels=_ONE, jump=_ONE), _input_grid(graph, tensor)) for tensor in graph.inputs
    }
    fields: list[Field | None] = []
    for operation in graph.operations:
        sources = [i for i in operation.inputs if i != ABSENT and i not in fixed]
        state = _merge([states.get(i) for i in sources])
        if state is not None:
            state = _step(graph, operation, state)
        for tensor in operation.outputs:
            states[tensor] = state
        fields.append(state.field if state is not None else None)
    return tuple(fields)


def _merge(states: list[_State | None]) -> _State | None:
    known = [state for state in states if state is not None]
    if not known or len(known) < len(states):
        return None
    pixels = _largest([state.field.pixels for state in known])
    jump = _largest([state.field.jump for state in known])
    grids = [state.grid for state in known if state.grid is not None]
    return _State(Field(pixels=pixels, jump=jump), grids[0] if grids else None)


def _largest(values: list[Axes]) -> Axes:
    return max(height for height, _ in values), max(width for _, width in values)


def _step(graph: Graph, operation: Operation, state: _State) -> _State | None:
    """The state behind one operation."""
    kind = operation.kind
    if kind in POSITIONWISE and not _is_windowed(operation):
        return state
    if kind in TRANSPOSED_CONVOLUTIONS:
        return _transposed(graph, operation, state)
    if kind in POOLINGS or (kind in CONVOLUTIONS and kind != "CONV_3D") or _is_windowed(operation):
        return _window(graph, operation, state)
    if kind == "FULLY_CONNECTED":
        return _dense(graph, operation, state)
    if kind in REDUCTIONS:
        return _reduction(graph, operation, state)
    if kind in RESAMPLINGS:
        return _resampling(graph, operation, state)
    return None


def _is_windowed(operation: Operation) -> bool:
    """Across channels a response is normalized at its own position, in Keras models also across positions."""
    return operation.kind == "LOCAL_RESPONSE_NORMALIZATION" and "kernel" in operation.options


def _window(graph: Graph, operation: Operation, state: _State) -> _State:
    kernel, stride, dilation = (operation.pair(name) for name in ("kernel", "stride", "dilation"))
    (rows, columns), (down, right) = state.field.pixels, state.field.jump
    pixels = (
        rows + (kernel[0] - 1) * dilation[0] * down,
        columns + (kernel[1] - 1) * dilation[1] * right,
    )
    jump = (down * stride[0], right * stride[1])
    return _State(Field(pixels=pixels, jump=jump), _grid(graph, operation.outputs[0]))


def _transposed(graph: Graph, operation: Operation, state: _State) -> _State:
    """An output position sees every stride-th tap, so at most ceil(kernel / stride) positions of the input."""
    kernel, stride = operation.pair("kernel"), operation.pair("stride")
    taps = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
    (rows, columns), (down, right) = state.field.pixels, state.field.jump
    pixels = (rows + (taps[0] - 1) * down, columns + (taps[1] - 1) * right)
    jump = (down / stride[0], right / stride[1])
    return _State(Field(pixels=pixels, jump=jump), _grid(graph, operation.outputs[0]))


def _dense(graph: Graph, operation: Operation, state: _State) -> _State | None:
    """A dense layer on one vector sees every position; on rows of vectors (keep_num_dims) only its own."""
    output = graph.tensors[operation.outputs[0]]
    if output.elements is None or not output.shape:
        return None
    if output.elements != output.shape[-1]:
        return state
    return _whole(state, (True, True))


def _reduction(graph: Graph, operation: Operation, state: _State) -> _State | None:
    source = graph.tensors[data_input(operation)].shape
    axes = operation.options.get("axes")
    if source is None or not isinstance(axes, tuple) or state.grid is None:
        return None
    if len(source) == 2:
        return state
    if len(source) != 4:
        return None
    height = _height_axis(source, state.grid, graph)
    reduced = {int(axis) % 4 for axis in axes}
    return _whole(state, (height in reduced, height + 1 in reduced))


def _height_axis(shape: tuple[int, ...], grid: tuple[int, int], graph: Graph) -> int:
    """Of a tensor with four axes; an ONNX graph may hold NHWC tensors between two TRANSPOSE."""
    if graph.format == "onnx" and shape[2:] != grid and shape[1:3] == grid:
        return 1
    return 1 if graph.layout == "NHWC" else 2


def _whole(state: _State, mixed: tuple[bool, bool]) -> _State | None:
    """All positions along the mixed axes flow into one."""
    if state.grid is None:
        return None
    pixels = [
        extent + (positions - 1) * jump if mix else extent
        for extent, positions, jump, mix in zip(state.field.pixels, state.grid, state.field.jump, mixed, strict=True)
    ]
    grid = (1 if mixed[0] else state.grid[0], 1 if mixed[1] else state.grid[1])
    return _State(Field(pixels=(pixels[0], pixels[1]), jump=state.field.jump), grid)


def _resampling(graph: Graph, operation: Operation, state: _State) -> _State | None:
    """Positions move together or apart; interpolation looks at the next one (bilinear) or next three (bicubic) too."""
    before, after = _grid(graph, data_input(operation)), _grid(graph, operation.outputs[0])
    if before is None or after is None or 0 in after:
        return None
    further = {"RESIZE_BILINEAR": 1, "RESIZE_BICUBIC": 3}.get(operation.kind, 0)
    (rows, columns), (down, right) = state.field.pixels, state.field.jump
    ratio = (Fraction(before[0], after[0]), Fraction(before[1], after[1]))
    if operation.kind == "SPACE_TO_DEPTH":  # a block of positions becomes one
        rows, columns = rows + (ratio[0] - 1) * down, columns + (ratio[1] - 1) * right
    pixels = (rows + further * down, columns + further * right)
    return _State(Field(pixels=pixels, jump=(down * ratio[0], right * ratio[1])), after)


def _grid(graph: Graph, tensor: int) -> Grid:
    """(height, width) of a tensor that an operation with a spatial extent reads or writes; (1, length) for one axis."""
    shape = graph.tensors[tensor].shape if tensor != ABSENT else None
    if shape is None or len(shape) not in (3, 4):
        return None
    spatial = shape[1:-1] if graph.layout == "NHWC" else shape[2:]
    if UNKNOWN in spatial:
        return None
    return (1, spatial[0]) if len(spatial) == 1 else (spatial[0], spatial[1])


def _input_grid(graph: Graph, tensor: int) -> Grid:
    """An ONNX model may have NHWC inputs: there the channels are taken to be the shorter one of axes 1 and 3."""
    shape = graph.tensors[tensor].shape
    if graph.format == "onnx" and shape is not None and len(shape) == 4 and shape[3] < shape[1]:
        return None if UNKNOWN in shape[1:3] else (shape[1], shape[2])
    return _grid(graph, tensor)


def image_grid(graph: Graph) -> Grid:
    """(height, width) of the graph's first input in pixels; None if it is no image or its size is open."""
    return _input_grid(graph, graph.inputs[0]) if graph.inputs else None


def covered_share(field: Field, image: tuple[int, int]) -> float:
    """The share of an image of (height, width) pixels that a field in its middle covers, in [0, 1]."""
    sides = [min(extent / side, Fraction(1)) for extent, side in zip(field.pixels, image, strict=True)]
    return float(sides[0] * sides[1])
