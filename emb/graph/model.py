"""The values of a graph: tensors, operations and their order. Knows no file format and computes no cost.

One vocabulary serves every format. `Operation.kind` is the name of the TFLite builtin operation (CONV_2D, SOFTMAX);
where TFLite has none, it is the source's own name in the same capitals (BATCH_NORMALIZATION). Inputs stand in
TFLite's order: CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED take (data, weights, bias), TRANSPOSE_CONV takes
(output shape, weights, data, bias). Shapes stay as the format has them: see `Graph.layout`.

The options that functions over a graph may rely on, where the operation has them:
  kernel, stride, dilation   (height, width)
  padding                    "SAME", "VALID" or "EXPLICIT"; with EXPLICIT also pads = (top, left, bottom, right)
  groups                     of a CONV_2D
  activation                 the fused activation, e.g. "RELU"; absent if there is none
  axes, perm, strides        of a reduction, of a TRANSPOSE, of a STRIDED_SLICE
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from emb.errors import ModelError
from emb.graph.vocabulary import POOLINGS, PRODUCTS, REDUCTIONS, REPRESENTATIONS, RESAMPLINGS

UNKNOWN = -1
"""An extent that the file leaves open until run time."""
ABSENT = -1
"""An optional input that an operation does without."""

Format = Literal["tflite", "onnx", "keras"]
Layout = Literal["NHWC", "NCHW"]
Option = bool | int | float | str | tuple[int, ...] | tuple[float, ...]

_BITS = {
    "float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "complex64": 64, "complex128": 128,
    "int64": 64, "int32": 32, "int16": 16, "int8": 8, "int4": 4, "int2": 2,
    "uint64": 64, "uint32": 32, "uint16": 16, "uint8": 8, "uint4": 4, "uint2": 2, "bool": 8,
    "float8_e4m3fn": 8, "float8_e5m2": 8,
}  # fmt: skip


# Positions of the inputs that a kind cannot do without.
_REQUIRED_INPUTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(POOLINGS | REDUCTIONS | REPRESENTATIONS | RESAMPLINGS, (0,)),
    **dict.fromkeys(PRODUCTS, (0, 1)),
    "TRANSPOSE_CONV": (1, 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """real = (stored - zero_point) * scale; axis is the tensor's axis that the scales run along, None per tensor."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None = None

    def __post_init__(self) -> None:
        if not self.scales or len(self.scales) != len(self.zero_points):
            raise ValueError(f"{len(self.scales)} scales and {len(self.zero_points)} zero points")
        if not all(math.isfinite(scale) for scale in self.scales):
            raise ValueError("a scale is not a finite number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A value that flows, or a constant of the file.

    shape: an extent of -1 is open until run time; None if even the rank is unknown.
    constant: the file holds the tensor's data.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    constant: bool = False
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        if any(extent < UNKNOWN for extent in self.shape or ()):
            raise ValueError(f"{self.name!r} has the impossible shape {self.shape}")

    @property
    def elements(self) -> int | None:
        """Number of elements for a batch of one (an open first extent counts as 1); None if it is unknown."""
        if self.shape is None:
            return None
        extents = (1, *self.shape[1:]) if self.shape[:1] == (UNKNOWN,) else self.shape
        return None if UNKNOWN in extents else math.prod(extents)

    @property
    def storage_bytes(self) -> int | None:
        """Bytes of the packed elements for a batch of one; None if the shape or the width of the dtype is unknown."""
        bits = _BITS.get(self.dtype)
        if self.elements is None or bits is None:
            return None
        return (self.elements * bits + 7) // 8

    @property
    def is_float(self) -> bool:
        return "float" in self.dtype or "complex" in self.dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """kind: see the module's vocabulary.  native: the source format's own name (QLinearConv, Conv2D).

    inputs, outputs: indices into `Graph.tensors`; an input may be ABSENT.
    custom: defined outside of the format's own set of operations.
    """

    kind: str
    name: str
    native: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Option] = field(default_factory=dict)
    custom: bool = False

    def pair(self, option: str) -> tuple[int, int]:
        """The (height, width) option of that name; (1, 1) if the operation has none."""
        value = self.options.get(option, (1, 1))
        if not isinstance(value, tuple) or len(value) != 2:
            raise ModelError(
                f"{self.kind} {self.name!r} has {option} = {value!r}",
                why="the option must be a pair of integers, height and width",
                fix="export the model again",
            )
        return int(value[0]), int(value[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Operations stand in the order of execution.

    layout: where the operations with a spatial extent have their channels. TFLite is always NHWC, ONNX always NCHW,
    Keras has either; an ONNX model may still have NHWC inputs, with a TRANSPOSE behind them.
    Raises ModelError if an index points nowhere, an operation lacks an input, or a tensor is written twice or read
    before it is written.
    """

    name: str
    format: Format
    layout: Layout
    tensors: tuple[Tensor, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        self._check_indices("the graph's inputs", self.inputs)
        self._check_indices("the graph's outputs", self.outputs)
        written: set[int] = set()
        written_later = {index for operation in self.operations for index in operation.outputs}
        for operation in self.operations:
            required = _REQUIRED_INPUTS.get(operation.kind, ())
            if any(operation.inputs[i : i + 1] in ((), (ABSENT,)) for i in required):
                raise self._damaged(f"{operation.kind} {operation.name}", "has too few inputs")
            if required and not operation.outputs:
                raise self._damaged(f"{operation.kind} {operation.name}", "has no output")
            self._check_indices(operation.name, (i for i in operation.inputs if i != ABSENT))
            self._check_indices(operation.name, operation.outputs)
            written_later.difference_update(operation.outputs)
            if not written.isdisjoint(operation.outputs) or len(set(operation.outputs)) < len(operation.outputs):
                raise self._damaged(operation.name, "writes a tensor that is written already")
            if not written_later.union(operation.outputs).isdisjoint(operation.inputs):
                raise self._damaged(operation.name, "reads a tensor before it is written")
            written.update(operation.outputs)

    def _check_indices(self, owner: str, indices: Iterable[int]) -> None:
        for index in indices:
            if not 0 <= index < len(self.tensors):
                raise self._damaged(owner, f"refers to tensor {index} of {len(self.tensors)}")

    def _damaged(self, owner: str, fault: str) -> ModelError:
        return ModelError(
            f"{self.name} is not a valid model",
            why=f"{owner} {fault}",
            fix="export the model again, or fetch the file again if it was downloaded",
        )


def producers(graph: Graph) -> dict[int, int]:
    """Tensor -> number of the operation that writes it; graph inputs and constants have none."""
    return {tensor: number for number, operation in enumerate(graph.operations) for tensor in operation.outputs}


def consumers(graph: Graph) -> dict[int, tuple[int, ...]]:
    """Tensor -> numbers of the operations that read it, in order of execution; graph outputs are no operation."""
    found: dict[int, list[int]] = {}
    for number, operation in enumerate(graph.operations):
        for tensor in dict.fromkeys(operation.inputs):
            if tensor != ABSENT:
                found.setdefault(tensor, []).append(number)
    return {tensor: tuple(numbers) for tensor, numbers in found.items()}


def constants(graph: Graph) -> frozenset[int]:
    """Tensors that do not depend on the graph's input: the file's constants and all that is computed from them alone.

    Weights that are stored small and widened when loaded (float16, QDQ) are found here behind their DEQUANTIZE.
    """
    found = {index for index, tensor in enumerate(graph.tensors) if tensor.constant}
    for operation in graph.operations:
        read = {index for index in operation.inputs if index != ABSENT}
        if read and read <= found:
            found.update(operation.outputs)
    return frozenset(found)


def data_input(operation: Operation) -> int:
    """Index of the tensor that carries the data of a convolution, dense layer, pooling or reduction."""
    position = 2 if operation.kind == "TRANSPOSE_CONV" else 0
    return operation.inputs[position] if len(operation.inputs) > position else ABSENT
