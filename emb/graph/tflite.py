"""Reads a .tflite file into a Graph. Knows nothing of targets or reports, and starts no interpreter.

Only the main subgraph is read; the bodies of IF and WHILE are not. A damaged file is a ModelError, whatever bytes it
holds: every index is checked, and no more elements are decoded than the file has bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emb.errors import ModelError
from emb.graph.model import ABSENT, Graph, Operation, Quantization, Tensor
from emb.graph.tflite_options import options_of

IDENTIFIER = b"TFL3"
# FlatBuffers of TFLite hold tensors of at most 8 axes; the margin is for formats to come.
_MAXIMUM_RANK = 16
# What the generated accessors raise when an offset points outside of the file or into something else.
_DECODING_ERRORS = (
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
# Dtypes whose data is not an array of equal elements.
_UNSIZED = frozenset({"string", "resource", "variant"})


def read(path: Path) -> Graph:
    """The graph of a .tflite file; operations are called after their first output, as TFLite gives them no names.

    Raises ModelError if the file cannot be read, is not a TFLite model, or is damaged.
    """
    data = _bytes(path)
    try:
        return _File(data, path.name).graph()
    except ModelError:
        raise
    except _DECODING_ERRORS as error:
        raise _damaged(path.name, f"its tables do not decode: {error}") from error


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read",
            why=error.strerror or str(error),
            fix="check the path of the .tflite file",
        ) from error
    if data[4:8] != IDENTIFIER:
        raise ModelError(
            f"{path.name} is not a TFLite model",
            why="bytes 4 to 8 of a TFLite file are 'TFL3'; this file has "
            + (repr(data[4:8])[1:] if len(data) >= 8 else f"{len(data)} bytes in all"),
            fix="give a .tflite file that a converter wrote",
        )
    return data


def _damaged(name: str, why: str) -> ModelError:
    return ModelError(
        f"{name} is a damaged TFLite model",
        why=why,
        fix="export the model again, or fetch the file again if it was downloaded",
    )


class _File:
    """One file while it is decoded. `left` bounds the work that shared or overlapping offsets can ask for."""

    def __init__(self, data: bytes, name: str) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.data = data
        self.name = name
        self.left = len(data)
        self.tensors: list[Tensor] = []
        self.buffers: list[int] = []
        self.model = schema.Model.GetRootAs(data, 0)
        self.dtypes = {code: text.lower() for text, code in _enumeration(schema.TensorType)}
        self.kinds = {code: text for text, code in _enumeration(schema.BuiltinOperator)}

    def graph(self) -> Graph:
        if self.model.SubgraphsLength() < 1:
            raise _damaged(self.name, "it has no subgraph")
        subgraph = self.model.Subgraphs(0)
        for index in range(self._tables(subgraph.TensorsLength())):
            table = subgraph.Tensors(index)
            self.buffers.append(table.Buffer())
            self.tensors.append(self._tensor(table, index))
        codes = [self._code(self.model.OperatorCodes(i)) for i in range(self._tables(self.model.OperatorCodesLength()))]
        operations = tuple(
            self._operation(subgraph.Operators(i), codes) for i in range(self._tables(subgraph.OperatorsLength()))
        )
        return Graph(
            name=self.name,
            format="tflite",
            layout="NHWC",
            tensors=tuple(self.tensors),
            operations=operations,
            inputs=self._numbers(subgraph.InputsAsNumpy()),
            outputs=self._numbers(subgraph.OutputsAsNumpy()),
        )

    def _tensor(self, table: Any, index: int) -> Tensor:
        name = self._text(table.Name()) or f"tensor {index}"
        code = table.Type()
        if code not in self.dtypes:
            raise _damaged(self.name, f"{name!r} has the unknown type {code}")
        dtype = self.dtypes[code]
        stored_bytes = self._stored_bytes(table.Buffer())
        shape = self._shape(table, name, constant=stored_bytes > 0)
        tensor = Tensor(
            name=name,
            shape=shape,
            dtype=dtype,
            constant=stored_bytes > 0,
            quantization=self._quantization(table.Quantization(), name),
        )
        sized = dtype not in _UNSIZED and table.Sparsity() is None
        if tensor.constant and sized and tensor.storage_bytes != stored_bytes:
            raise _damaged(self.name, f"{name!r} {dtype}{list(shape or ())} has {stored_bytes:,} bytes of data")
        return tensor

    def _shape(self, table: Any, name: str, *, constant: bool) -> tuple[int, ...] | None:
        """The signature, where there is one, has -1 for what the plain shape pretends to be 1."""
        shape = self._numbers(table.ShapeAsNumpy())
        signature = self._numbers(table.ShapeSignatureAsNumpy())
        if signature and len(signature) != len(shape):
            raise _damaged(self.name, f"{name!r} has two ranks, {len(shape)} and {len(signature)}")
        if len(shape) > _MAXIMUM_RANK:
            raise _damaged(self.name, f"{name!r} has {len(shape)} axes")
        if not shape and not constant and not table.HasRank():
            return None
        return signature or shape

    def _quantization(self, table: Any, name: str) -> Quantization | None:
        scales = self._numbers(table.ScaleAsNumpy()) if table is not None else ()
        if not scales:
            return None
        zero_points = self._numbers(table.ZeroPointAsNumpy()) or (0,)
        if len(zero_points) == 1:
            zero_points *= len(scales)
        if len(zero_points) != len(scales):
            raise _damaged(self.name, f"{name!r} has {len(scales)} scales and {len(zero_points)} zero points")
        axis = table.QuantizedDimension() if len(scales) > 1 else None
        return Quantization(scales=scales, zero_points=zero_points, axis=axis)

    def _stored_bytes(self, buffer: int) -> int:
        """Bytes of a buffer's data, which for models beyond 2 GB lies behind the FlatBuffer; 0 if there is none."""
        if not 0 <= buffer < max(self.model.BuffersLength(), 1):
            raise _damaged(self.name, f"there is no buffer {buffer}")
        if buffer == 0:  # by convention the empty one
            return 0
        table = self.model.Buffers(buffer)
        if table.Offset() > 1:
            end = table.Offset() + table.Size()
            if end > len(self.data):
                raise _damaged(self.name, f"buffer {buffer} ends at byte {end:,} of {len(self.data):,}")
            return int(table.Size())
        values = table.DataAsNumpy()
        return 0 if isinstance(values, int) else len(values)

    def _code(self, table: Any) -> str:
        # Files from before 2020 have the code in the deprecated byte alone.
        code = max(table.BuiltinCode(), table.DeprecatedBuiltinCode())
        if code == self.schema.BuiltinOperator.CUSTOM:
            return "custom:" + (self._text(table.CustomCode()) or "?")
        return self.kinds.get(code, f"BUILTIN_{code}")

    def _operation(self, table: Any, codes: list[str]) -> Operation:
        if table.OpcodeIndex() >= len(codes):
            raise _damaged(self.name, f"there is no operator code {table.OpcodeIndex()}")
        code = codes[table.OpcodeIndex()]
        kind = code.removeprefix("custom:")
        inputs = self._numbers(table.InputsAsNumpy())
        outputs = self._numbers(table.OutputsAsNumpy())
        if any(not 0 <= i < len(self.tensors) for i in (*outputs, *(i for i in inputs if i != ABSENT))):
            raise _damaged(self.name, f"{kind} refers to a tensor that does not exist")
        name = self.tensors[outputs[0]].name if outputs else kind
        return Operation(
            kind=kind,
            name=name,
            native=kind,
            inputs=inputs,
            outputs=outputs,
            options=options_of(
                self.schema,
                table,
                kind=kind,
                name=name,
                shapes=[self.tensors[i].shape if i != ABSENT else None for i in inputs],
                integers=[self._integers(i) for i in inputs],
            ),
            custom=code.startswith("custom:"),
        )

    def _integers(self, index: int) -> tuple[int, ...] | None:
        """The data of a small integer constant: axes, a permutation, paddings."""
        if index == ABSENT or not self.tensors[index].constant:
            return None
        tensor = self.tensors[index]
        width = {"int32": 4, "int64": 8}.get(tensor.dtype)
        if width is None or not tensor.storage_bytes or tensor.storage_bytes > width * _MAXIMUM_RANK:
            return None
        values = self.model.Buffers(self.buffers[index]).DataAsNumpy()
        if isinstance(values, int):
            return None
        return self._numbers(values.view(f"<i{width}"))

    def _numbers(self, values: Any) -> tuple[Any, ...]:
        """A vector of numbers; the accessors give the integer 0 for an absent one, else a numpy array."""
        if isinstance(values, int):
            return ()
        self._spend(len(values))
        return tuple(values.tolist())

    def _tables(self, count: int) -> int:
        """The number of tables in a vector, once it is known that the file can hold their offsets."""
        self._spend(4 * count)
        return count

    def _text(self, text: bytes | None) -> str:
        if text is None:
            return ""
        self._spend(len(text))
        return text.decode("utf-8", errors="replace")

    def _spend(self, elements: int) -> None:
        self.left -= elements
        if self.left < 0:
            raise _damaged(self.name, "its vectors hold more elements than the file has bytes")


def _enumeration(cls: type) -> Iterator[tuple[str, int]]:
    return ((name, code) for name, code in vars(cls).items() if isinstance(code, int))
