"""Reads an .onnx file into a Graph. Knows nothing of ONNX Runtime and runs nothing.

Shapes stay ONNX's own: activations NCHW, weights OIHW. Static shapes come from onnx.shape_inference; where an operator
is unknown to it (com.microsoft), they are unknown. Constant nodes become constants; QuantizeLinear and
DequantizeLinear stay as operations, and the integer tensors at them carry the scales.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from emb.errors import ModelError
from emb.graph.model import ABSENT, UNKNOWN, Graph, Operation, Option, Quantization, Tensor
from emb.graph.onnx_kinds import kept_inputs, kept_positions, kind_of, options_of, plain, scaled

_DTYPES = {"float": "float32", "double": "float64", "float8e4m3fn": "float8_e4m3fn", "float8e5m2": "float8_e5m2"}
_STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# Shapes, axes and the scales of channels are read; the data of weights never is.
_SMALL_ELEMENTS = 8192


def read(path: Path) -> Graph:
    """The graph of an .onnx file. External data need not be there: only its shape is read.

    Raises ModelError if the file cannot be read, is not an ONNX model, or is damaged.
    """
    model = _model(path)
    try:
        return _File(_with_shapes(model, path.name), path.name).graph()
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(path.name, f"its graph does not decode: {error}") from error


def _model(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it ships no types

    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read",
            why=error.strerror or str(error),
            fix="check the path of the .onnx file",
        ) from error
    except (DecodeError, RuntimeError, ValueError) as error:
        raise _damaged(path.name, "it does not decode as an ONNX ModelProto") from error
    if not model.ir_version or not model.graph.output:
        raise _damaged(path.name, "it has no ir_version or no graph with outputs")
    return model


def _damaged(name: str, why: str) -> ModelError:
    return ModelError(
        f"{name} is not an ONNX model, or a damaged one",
        why=why,
        fix="export the model again, or fetch the file again if it was downloaded",
    )


def _with_shapes(model: Any, name: str) -> Any:
    """The model with the shapes of its values inferred; large constants keep their shape and dtype alone.

    Inference copies the whole model, and protobuf ends at 2 GB: without the weights both are small.
    """
    import onnx

    for tensor in _constant_tensors(model.graph):
        if _elements(tensor.dims) > _SMALL_ELEMENTS:
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(field)
    model.graph.ClearField("quantization_annotation")
    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    _with_standard_operators(stripped.graph)
    known = {value.name for value in stripped.graph.input}
    small = [tensor for tensor in model.graph.initializer if _elements(tensor.dims) <= _SMALL_ELEMENTS]
    # An initializer without data would be refused; an input of its shape says as much.
    stripped.graph.ClearField("initializer")
    stripped.graph.initializer.extend(small)
    for tensor in model.graph.initializer:
        if _elements(tensor.dims) > _SMALL_ELEMENTS and tensor.name not in known:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            stripped.graph.input.append(value)
    try:
        inferred = onnx.shape_inference.infer_shapes(stripped, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise _damaged(name, str(error).splitlines()[0]) from error
    model.graph.ClearField("value_info")
    model.graph.value_info.extend(inferred.graph.value_info)
    for place, value in enumerate(inferred.graph.output):
        model.graph.output[place].CopyFrom(value)
    return model


def _with_standard_operators(graph: Any) -> None:
    """ONNX Runtime's own operators, unknown to shape inference, become those that give the same shapes."""
    for node in graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:  # its own for 16 bits
            node.domain = ""
        elif node.domain == "com.microsoft" and plain(node.op_type) != node.op_type:
            positions = kept_positions(node.op_type)
            kept = [node.input[i] for i in positions if i < len(node.input)]
            del node.input[:]
            node.input.extend(kept)
            node.op_type, node.domain = plain(node.op_type), ""


def _constant_tensors(graph: Any) -> Iterable[Any]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.name == "value")


def _elements(dims: Iterable[int]) -> int:
    product = 1
    for extent in dims:
        product *= extent
    return product


class _File:
    """One model while it is read: tensors by their names."""

    def __init__(self, model: Any, name: str) -> None:
        self.model = model
        self.name = name
        self.tensors: list[Tensor] = []
        self.index: dict[str, int] = {}
        self.data: dict[int, Any] = {}  # the TensorProto of each constant in the file
        self.fixed: set[int] = set()  # constants, and what is computed from them alone

    def graph(self) -> Graph:
        source = self.model.graph
        for tensor in source.initializer:
            self._constant(tensor.name, tensor)
        # An initializer may also be listed as an input: a default that a caller could replace.
        inputs = tuple(self._value(value) for value in source.input if value.name not in self.index)
        for value in (*source.value_info, *source.output):
            if value.name not in self.index:
                self._value(value)
        operations = []
        for node in source.node:
            if node.op_type == "Constant" and self._constant_node(node):
                continue
            operations.append(self._operation(node))
        return Graph(
            name=self.name,
            format="onnx",
            layout="NCHW",
            tensors=tuple(self.tensors),
            operations=tuple(operations),
            inputs=inputs,
            outputs=tuple(self._named(value.name) for value in source.output),
        )

    def _add(self, tensor: Tensor) -> int:
        _text(tensor.name)
        if tensor.name in self.index:  # shape inference names constants of Constant nodes as well
            self.tensors[self.index[tensor.name]] = tensor
        else:
            self.index[tensor.name] = len(self.tensors)
            self.tensors.append(tensor)
        return self.index[tensor.name]

    def _named(self, name: str) -> int:
        """A value that nothing has described: its shape and dtype are unknown."""
        if not name:
            return ABSENT
        if name not in self.index:
            self._add(Tensor(name=name, shape=None, dtype="unknown"))
        return self.index[name]

    def _constant(self, name: str, tensor: Any) -> int:
        shape = tuple(tensor.dims)
        index = self._add(Tensor(name=name, shape=shape, dtype=_dtype(tensor.data_type), constant=True))
        self.fixed.add(index)
        if tensor.data_location != tensor.EXTERNAL:
            self.data[index] = tensor
        return index

    def _constant_node(self, node: Any) -> bool:
        """A Constant node whose value is a tensor or numbers; other kinds stay operations."""
        import onnx

        attribute = node.attribute[0]
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            self._constant(node.output[0], value)
            return True
        if attribute.name in {"value_int", "value_ints", "value_float", "value_floats"}:
            import numpy as np

            dtype = np.int64 if "int" in attribute.name else np.float32
            array = np.asarray(value, dtype=dtype)
            self._constant(node.output[0], onnx.numpy_helper.from_array(array))
            return True
        return False

    def _value(self, value: Any) -> int:
        kind = value.type.tensor_type
        shape = None
        if kind.HasField("shape"):
            shape = tuple(d.dim_value if d.HasField("dim_value") else UNKNOWN for d in kind.shape.dim)
        return self._add(Tensor(name=value.name, shape=shape, dtype=_dtype(kind.elem_type)))

    def _operation(self, node: Any) -> Operation:
        native, attributes = _text(node.op_type), _attributes(node)
        inputs = tuple(self._named(name) for name in node.input)
        outputs = tuple(self._named(name) for name in node.output if name)
        read = {i for i in inputs if i != ABSENT}
        if read and read <= self.fixed:
            self.fixed.update(outputs)
        for tensor, (scale, zero_point) in scaled(native, inputs, outputs):
            self._quantize(tensor, scale, zero_point, axis=attributes.get("axis", 0 if "Conv" in native else 1))
        kept = kept_inputs(native, inputs)
        data_first = (kept[2], kept[1]) if plain(native) == "ConvTranspose" else kept
        shapes = [self.tensors[i].shape if i != ABSENT else None for i in data_first]
        weights_constant = len(data_first) > 1 and data_first[1] in self.fixed
        return Operation(
            kind=kind_of(native, attributes, shapes, weights_constant=weights_constant),
            name=_text(node.name) or (node.output[0] if node.output else native),
            native=native,
            inputs=kept,
            outputs=outputs,
            options=options_of(native, attributes, shapes, lambda i: self._integers(kept, i)),
            custom=node.domain not in _STANDARD_DOMAINS,
        )

    def _integers(self, inputs: tuple[int, ...], position: int) -> tuple[int, ...] | None:
        index = inputs[position] if position < len(inputs) else ABSENT
        values = self._values(index)
        return tuple(values) if values and all(isinstance(value, int) for value in values) else None

    def _values(self, index: int) -> list[Any] | None:
        """The data of a small constant, flat; None if it is large, elsewhere or no constant at all."""
        import onnx

        tensor = self.data.get(index)
        if tensor is None or _elements(tensor.dims) > _SMALL_ELEMENTS:
            return None
        values: list[Any] = onnx.numpy_helper.to_array(tensor).reshape(-1).tolist()
        return values

    def _quantize(self, index: int, scale: int, zero_point: int, *, axis: Option) -> None:
        scales = self._values(scale)
        if not scales:
            return
        zero_points = self._values(zero_point) or [0] * len(scales)
        per_axis = axis if len(scales) > 1 and isinstance(axis, int) else None
        quantization = Quantization(
            scales=tuple(float(value) for value in scales),
            zero_points=tuple(int(value) for value in zero_points),
            axis=per_axis,
        )
        self.tensors[index] = replace(self.tensors[index], quantization=quantization)


def _text(value: str | bytes) -> str:
    """Protobuf hands out as bytes what is not UTF-8."""
    if isinstance(value, bytes):
        raise TypeError(f"the name {value[:40]!r} is not UTF-8")
    return value


def _attributes(node: Any) -> dict[str, Option]:
    """Numbers, texts and lists of numbers; tensors and graphs are left out."""
    found: dict[str, Option] = {}
    for attribute in node.attribute:
        name = _text(attribute.name)
        if attribute.type == attribute.INT:
            found[name] = int(attribute.i)
        elif attribute.type == attribute.FLOAT:
            found[name] = float(attribute.f)
        elif attribute.type == attribute.STRING:
            found[name] = attribute.s.decode("utf-8", errors="replace")
        elif attribute.type == attribute.INTS:
            found[name] = tuple(attribute.ints)
        elif attribute.type == attribute.FLOATS:
            found[name] = tuple(attribute.floats)
    return found


def _dtype(code: int) -> str:
    import onnx

    name = onnx.TensorProto.DataType.Name(code).lower()
    return _DTYPES.get(name, "unknown" if name == "undefined" else name)
