"""Reads, edits and writes a .tflite file as the schema's own objects. Knows no Graph and no scheme.

ai_edge_litert's schema objects are mutable; a model is read, edited in place and written within one function.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

# The schema demands it (`force_align: 16`), and XNNPACK and microcontrollers read weights in place.
_BUFFER_ALIGNMENT = 16
_IDENTIFIER = b"TFL3"


def load(path: Path) -> Any:
    """The file as a schema ModelT."""
    return unpack(path.read_bytes())


def unpack(content: bytes) -> Any:
    """The content of a .tflite file as a schema ModelT, with every buffer's data in its place.

    Large buffers may stand behind the flatbuffer, at an offset; older readers do not look there.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, count=buffer.size, offset=buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def pack(model: Any) -> bytes:
    """The bytes of a .tflite file; the same model always gives the same bytes.

    Equal lists of numbers are written once: a network has as many zero points as channels, and all are 0.
    """
    import flatbuffers

    class Builder(flatbuffers.Builder):  # type: ignore[misc]  # it ships no types
        head: int
        written: dict[tuple[str, bytes], Any] = {}  # noqa: RUF012  of this one builder

        def CreateNumpyVector(self, x: Any) -> Any:  # noqa: N802  the name that the schema's objects call
            if x.dtype != np.uint8:
                key = (x.dtype.str, x.tobytes())
                if key not in self.written:
                    self.written[key] = super().CreateNumpyVector(x)
                return self.written[key]
            self.StartVector(1, x.size, _BUFFER_ALIGNMENT)
            self.head = self.head - x.size
            self.Bytes[self.head : self.head + x.size] = x.tobytes()
            return self.EndVector()

    data = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    # Room for all from the beginning: the builder grows by doubling, and copies every time.
    builder = Builder(data + data // 16 + (1 << 20))
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def tensor_name(tensor: Any) -> str:
    """The tensor's name as text."""
    name = tensor.name
    return name.decode("utf-8") if isinstance(name, bytes) else str(name or "")


def is_constant(model: Any, tensor: Any) -> bool:
    """Whether the file holds the tensor's values."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def constant(model: Any, tensor: Any, dtype: type[np.generic]) -> Any:
    """The tensor's values in the file, of its shape."""
    raw = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    return raw.view(dtype).reshape(tensor.shape)


def builtin_code(code: Any) -> int:
    """The operation of an operator code; files written before 2020 have it in the deprecated field."""
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def operation_name(model: Any, operator: Any) -> str:
    """The schema's name of an operation, such as CONV_2D."""
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return code.customCode.decode() if isinstance(code.customCode, bytes) else str(code.customCode)
    return _names("BuiltinOperator").get(builtin_code(code), str(builtin_code(code)))


def type_name(tensor: Any) -> str:
    """The schema's name of a tensor's type, such as INT8."""
    return _names("TensorType").get(tensor.type, str(tensor.type))


def operator_code(model: Any, *, builtin: int, version: int) -> int:
    """Index of the operator code; added to the model if it is not there."""
    from ai_edge_litert import schema_py_generated as schema

    for index, code in enumerate(model.operatorCodes):
        if builtin_code(code) == builtin and code.version == version and not code.customCode:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = builtin
    # Readers older than the new field know 127 operations and look here.
    code.deprecatedBuiltinCode = min(builtin, 127)
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def drop_unused_tensors(model: Any) -> None:
    """Leave the main subgraph the tensors that an operation or the border names, in their order; edits a ModelT."""
    graph = model.subgraphs[0]
    used = {int(index) for operator in graph.operators for index in (*operator.inputs, *operator.outputs)}
    kept = sorted((used | {int(index) for index in (*graph.inputs, *graph.outputs)}) - {-1})
    place = {index: number for number, index in enumerate(kept)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in kept]
    for owner in (*graph.operators, graph):
        owner.inputs = np.array([place[int(index)] for index in owner.inputs], np.int32)
        owner.outputs = np.array([place[int(index)] for index in owner.outputs], np.int32)
    for signature in model.signatureDefs or []:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = place[entry.tensorIndex]


def _names(enumeration: str) -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    members = vars(getattr(schema, enumeration))
    return {value: name for name, value in members.items() if isinstance(value, int)}
