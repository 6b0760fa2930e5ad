"""Packs neighbouring pixels into the channels of an int8 .tflite's convolutions, and takes that back.

A RESHAPE stands before and behind a packed convolution; see _packing for what is gained.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.graph import flatbuffer as fb
from emb.quantize._packing import Convolution, Packing, packed, packing

# Behind the name of what the convolution wrote.
_PIXELS, _PACKED, _SHAPE = "_pixels", "_packed", "_shape"


def pack_pixels(model: Any, *, lanes: int, maps: int) -> int:
    """Edit a schema ModelT in place, wherever that is worth it; its answers keep their bits.

    lanes, maps: see `packing`. Returns how many convolutions were packed.
    """
    count = 0
    for operator in list(model.subgraphs[0].operators):
        found = _packable(model, operator)
        way = packing(found, lanes=lanes, maps=maps) if found else None
        if way and _is_padded_so(operator, way):
            _pack(model, operator, way)
            count += 1
    return count


def unpack_pixels(model: Any, real_model: Any) -> None:
    """Edit a packed schema ModelT in place: its convolutions become those of the float model that it was made of."""
    subgraph, whole = model.subgraphs[0], real_model.subgraphs[0]
    written = {fb.tensor_name(whole.tensors[one.outputs[0]]): one for one in whole.operators}
    for place in reversed(range(len(subgraph.operators))):
        operator = subgraph.operators[place]
        name = fb.tensor_name(subgraph.tensors[operator.outputs[0]])
        original = written.get(name.removesuffix(_PACKED)) if name.endswith(_PACKED) else None
        if original is not None and fb.operation_name(model, operator) == "CONV_2D":
            before, behind = subgraph.operators[place - 1], subgraph.operators[place + 1]
            operator.inputs = np.array([before.inputs[0], *operator.inputs[1:]], np.int32)
            operator.outputs = np.array(behind.outputs, np.int32)
            subgraph.operators[place - 1 : place + 2] = [operator]
            _restore(model, operator, whole.tensors[original.inputs[1]].shape, original.builtinOptions)


def _packable(model: Any, operator: Any) -> Convolution | None:
    """The convolution along its width, if it is one of int8 whose weights and bias nobody else reads."""
    subgraph = model.subgraphs[0]
    if fb.operation_name(model, operator) != "CONV_2D" or len(operator.inputs) != 3 or min(operator.inputs) < 0:
        return None
    image, weights, bias = (subgraph.tensors[index] for index in operator.inputs)
    options = operator.builtinOptions
    if image.shapeSignature is not None and min(image.shapeSignature) < 0:
        return None
    if options.dilationWFactor != 1 or options.dilationHFactor != 1 or image.shape[3] != weights.shape[3]:
        return None
    if any(fb.type_name(one) != "INT8" for one in (image, weights, subgraph.tensors[operator.outputs[0]])):
        return None
    readers = [int(index) for one in subgraph.operators for index in one.inputs]
    if any(
        readers.count(int(index)) != 1 or not fb.is_constant(model, one)
        for index, one in zip(operator.inputs[1:], (weights, bias), strict=True)
    ):
        return None
    return _along_width(image.shape, weights.shape, options)


def _along_width(image: Sequence[int], weights: Sequence[int], options: Any) -> Convolution:
    from ai_edge_litert import schema_py_generated as schema

    width, taps, stride = int(image[2]), int(weights[2]), int(options.strideW)
    missing = 0
    if options.padding == schema.Padding.SAME:
        missing = max(0, (-(-width // stride) - 1) * stride + taps - width)
    return Convolution(
        width=width,
        channels=int(weights[3]),
        maps=int(weights[0]),
        taps=taps,
        stride=stride,
        before=missing // 2,
        after=missing - missing // 2,
    )


def _is_padded_so(operator: Any, way: Packing) -> bool:
    """Whether the convolution's own padding, in packed pixels, is what it takes."""
    from ai_edge_litert import schema_py_generated as schema

    missing = way.taps - 1 if operator.builtinOptions.padding == schema.Padding.SAME else 0
    return (way.before, way.after) == (missing // 2, missing - missing // 2)


def _pack(model: Any, operator: Any, way: Packing) -> None:
    subgraph = model.subgraphs[0]
    image, weights, bias = (subgraph.tensors[index] for index in operator.inputs)
    output = subgraph.tensors[operator.outputs[0]]
    stride = int(operator.builtinOptions.strideW)
    _fill(model, weights, way.kernel(fb.constant(model, weights, np.int8), stride=stride))
    _fill(model, bias, np.tile(fb.constant(model, bias, np.int32), way.outputs))
    for one in (weights, bias):
        _scale(one, lambda values: np.tile(values, way.outputs))
    operator.builtinOptions.strideW = 1
    source, target = int(operator.inputs[0]), int(operator.outputs[0])
    batch, height, width, channels = (int(size) for size in image.shape)
    name = fb.tensor_name(output)
    pixels = _add_tensor(
        subgraph, image, name + _PIXELS, shape=(batch, height, width // way.pixels, way.pixels * channels)
    )
    batch, height, width, maps = (int(size) for size in output.shape)
    outputs = _add_tensor(
        subgraph, output, name + _PACKED, shape=(batch, height, width // way.outputs, way.outputs * maps)
    )
    place = subgraph.operators.index(operator)
    operator.inputs = np.array([pixels, *operator.inputs[1:]], np.int32)
    operator.outputs = np.array([outputs], np.int32)
    subgraph.operators.insert(place + 1, _reshape(model, outputs, target))
    subgraph.operators.insert(place, _reshape(model, source, pixels))


def _restore(model: Any, operator: Any, shape: Sequence[int], options: Any) -> None:
    """The kernel, bias and stride of a packed convolution as they were. shape, options: those of the float one."""
    subgraph = model.subgraphs[0]
    image, weights, bias = (subgraph.tensors[index] for index in operator.inputs)
    maps = int(shape[0])
    one = _along_width(image.shape, shape, options)
    way = packed(one, int(weights.shape[0]) // maps)
    assert way is not None, "as it was packed so"
    _fill(model, weights, way.first_kernel(fb.constant(model, weights, np.int8), taps=one.taps, channels=one.channels))
    _fill(model, bias, fb.constant(model, bias, np.int32)[:maps])
    for tensor in (weights, bias):
        _scale(tensor, lambda values: values[:maps])
    operator.builtinOptions.strideW = one.stride


def _fill(model: Any, tensor: Any, values: NDArray[Any]) -> None:
    """Give a constant other values and their shape. Its old buffer stays, as another tensor may have it too."""
    tensor.buffer = _add_buffer(model, values)
    tensor.shape = np.array(values.shape, np.int32)


def _scale(tensor: Any, changed: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Change the arrays of scales and zero points, if there is one for each channel."""
    old = tensor.quantization
    if len(old.scale) > 1:
        new = tensor.quantization = copy.copy(old)
        new.scale, new.zeroPoint = changed(np.asarray(old.scale)), changed(np.asarray(old.zeroPoint))


def _add_tensor(subgraph: Any, like: Any, name: str, *, shape: Sequence[int]) -> int:
    tensor = copy.copy(like)
    tensor.name, tensor.shape, tensor.shapeSignature = name.encode(), np.array(shape, np.int32), None
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _add_buffer(model: Any, values: NDArray[Any]) -> int:
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _reshape(model: Any, source: int, target: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    subgraph = model.subgraphs[0]
    wanted = schema.TensorT()
    wanted.name = (fb.tensor_name(subgraph.tensors[target]) + _SHAPE).encode()
    wanted.type, wanted.shape = schema.TensorType.INT32, np.array([4], np.int32)
    wanted.buffer = _add_buffer(model, np.array(subgraph.tensors[target].shape, np.int32))
    subgraph.tensors.append(wanted)
    operator = schema.OperatorT()
    operator.opcodeIndex = fb.operator_code(model, builtin=schema.BuiltinOperator.RESHAPE, version=1)
    operator.inputs = np.array([source, len(subgraph.tensors) - 1], np.int32)
    operator.outputs = np.array([target], np.int32)
    return operator
