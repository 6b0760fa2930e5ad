"""Rewrites ONNX operations for which ONNX Runtime has no integer kernel into ones for which it has. Exactly.

GlobalMaxPool is a MaxPool over the whole image, a mean over height and width a GlobalAveragePool.
tanh(x) = 2 sigmoid(2 x) - 1, and doubling or moving a quantized tensor only changes its scale and zero point: the
integers of the sigmoid, 0..255 for 0..1, are those of the tanh.
A normalization that no convolution before it takes in is a factor and a summand for each channel, and so a depthwise
convolution of one tap: one fast operation instead of two with a rounding between them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emb.quantize._onnx_graph import free_name, readers_of
from emb.quantize._ranges import Range

# scale 1/128, zero point 128: what the sigmoid's scale 1/256, zero point 0 becomes.
_TANH_RANGE = Range(lowest=-1.0, highest=127 / 128)


def global_pools_to_pools(model: Any) -> None:
    """Edit a ModelProto with inferred shapes in place: GlobalMaxPool becomes MaxPool."""
    import onnx

    shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.value_info}
    for node in model.graph.node:
        if node.op_type == "GlobalMaxPool" and node.input[0] in shapes:
            node.op_type = "MaxPool"
            sizes = [size.dim_value for size in shapes[node.input[0]]][2:]
            node.attribute.append(onnx.helper.make_attribute("kernel_shape", sizes))


def means_to_global_pools(model: Any) -> Any:
    """The ModelProto with every mean over height and width, channels last, as transposition and GlobalAveragePool.

    tf2onnx leaves such a ReduceMean behind some concatenations, and ONNX Runtime has no integer kernel for it.
    """
    import onnx

    shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.value_info}
    rewritten = False
    for place, node in reversed(list(enumerate(model.graph.node))):
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        is_mean = node.op_type == "ReduceMean" and sorted(attributes.get("axes", ())) == [1, 2]
        if not is_mean or attributes.get("keepdims", 1) or len(shapes.get(node.input[0], ())) != 4:
            continue
        first, pooled = f"{node.output[0]}_channels_first", f"{node.output[0]}_pooled"
        made = [
            onnx.helper.make_node("Transpose", [node.input[0]], [first], name=first, perm=[0, 3, 1, 2]),
            onnx.helper.make_node("GlobalAveragePool", [first], [pooled], name=pooled),
            onnx.helper.make_node("Flatten", [pooled], list(node.output), name=node.name, axis=1),
        ]
        del model.graph.node[place]
        for new in reversed(made):
            model.graph.node.insert(place, new)
        rewritten = True
    return onnx.shape_inference.infer_shapes(model) if rewritten else model


def normalizations_to_convolutions(model: Any, *, kept: Collection[str] = ()) -> None:
    """Edit a ModelProto with inferred shapes in place: what is left of normalizations becomes depthwise convolutions.

    Both a BatchNormalization and what it is behind a converter, a product and a sum with constants, channels first.
    kept: names of outputs of operations that stay as they are.
    """
    import onnx

    graph = model.graph
    channels = {
        value.name: value.type.tensor_type.shape.dim[1].dim_value
        for value in (*graph.input, *graph.value_info)
        if len(value.type.tensor_type.shape.dim) == 4
    }
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = readers_of(graph)
    outputs = {value.name for value in graph.output}
    taken = {*held, *readers, *(name for node in graph.node for name in node.output)}
    for node in list(graph.node):
        replaced, found = [node], None
        behind = readers.get(node.output[0], [])
        if node.op_type == "BatchNormalization":
            found = _of_normalization(node, held)
        elif node.op_type == "Mul" and len(behind) == 1 and behind[0].op_type == "Add":
            replaced, found = [node, behind[0]], _of_product_and_sum(node, behind[0], held)
        if found is None or channels.get(found.source) != len(found.factors):
            continue
        *between, written = (one.output[0] for one in replaced)
        if not {*between, written}.isdisjoint(kept) or not outputs.isdisjoint(between):
            continue
        weights, bias = (free_name(name, taken) for name in found.constants)
        graph.initializer.extend(
            [
                onnx.numpy_helper.from_array(found.factors.reshape(-1, 1, 1, 1), weights),
                onnx.numpy_helper.from_array(found.summands, bias),
            ]
        )
        made = onnx.helper.make_node(
            "Conv",
            [found.source, weights, bias],
            [written],
            name=replaced[-1].name,
            group=len(found.factors),
            kernel_shape=[1, 1],
        )
        graph.node.insert(list(graph.node).index(replaced[-1]), made)
        for one in replaced:
            graph.node.remove(one)


class _Affine(NamedTuple):
    """What one operation, or two, make of each channel. factors, summands: (channels,) float32.

    constants: the names of what they were computed from.
    """

    source: str
    constants: tuple[str, str]
    factors: NDArray[np.float32]
    summands: NDArray[np.float32]


def _of_normalization(node: Any, held: dict[str, NDArray[Any]]) -> _Affine | None:
    import onnx

    if any(name not in held for name in node.input[1:5]) or len(node.output) > 1:
        return None
    scale, shift, mean, variance = (held[name].astype(np.float64) for name in node.input[1:5])
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    factors = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    return _Affine(
        source=node.input[0],
        constants=(node.input[1], node.input[2]),
        factors=factors.astype(np.float32),
        summands=(shift - mean * factors).astype(np.float32),
    )


def _of_product_and_sum(product: Any, total: Any, held: dict[str, NDArray[Any]]) -> _Affine | None:
    constants = [name for node in (product, total) for name in node.input if name in held]
    values = [name for node in (product, total) for name in node.input if name not in held]
    if len(constants) != 2 or len(values) != 2 or constants[0] not in product.input or values[1] != product.output[0]:
        return None
    factors, summands = (held[name] for name in constants)
    count = factors.size
    # (1, channels, 1, 1) or (channels, 1, 1). One number for all channels is no normalization.
    if count < 2 or any(one.shape[-3:] != (count, 1, 1) or one.size != count for one in (factors, summands)):
        return None
    return _Affine(
        source=values[0],
        constants=(constants[0], constants[1]),
        factors=factors.reshape(-1),
        summands=summands.reshape(-1),
    )


def tanh_ranges(model: Any, *, kept: Collection[str] = ()) -> dict[str, Range]:
    """{tensor: range} that `tanh_to_sigmoid` needs the outputs of every Tanh to have; not of those in `kept`."""
    outputs = [node.output[0] for node in model.graph.node if node.op_type == "Tanh"]
    return {name: _TANH_RANGE for name in outputs if name not in kept}


def tanh_to_sigmoid(graph: Any, *, kept: Collection[str] = ()) -> None:
    """Edit a graph in QDQ form in place; every Tanh's output has the range of `tanh_ranges`.

    kept: names of outputs whose Tanh stays as it is.
    """
    from onnx import numpy_helper

    writers = {name: node for node in graph.node for name in node.output}
    held = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Tanh" and node.output[0] not in kept]:
        widen = writers.get(node.input[0])
        narrow = [reader for reader in graph.node if node.output[0] in reader.input]
        if (
            widen is None
            or widen.op_type != "DequantizeLinear"
            or [one.op_type for one in narrow] != ["QuantizeLinear"]
        ):
            continue
        stem = node.name or node.output[0]
        scale = numpy_helper.to_array(held[widen.input[1]])
        doubled = type(widen).FromString(widen.SerializeToString())
        doubled.name, doubled.output[0], doubled.input[1] = (
            f"{stem}_doubled",
            f"{stem}_doubled",
            f"{stem}_doubled_scale",
        )
        node.op_type, node.input[0] = "Sigmoid", doubled.output[0]
        narrow[0].input[1], narrow[0].input[2] = f"{stem}_sigmoid_scale", f"{stem}_sigmoid_zero_point"
        if [reader for reader in graph.node if widen.output[0] in reader.input] == []:
            graph.node.remove(widen)
        graph.node.append(doubled)
        graph.initializer.extend(
            [
                numpy_helper.from_array(scale * np.float32(2), f"{stem}_doubled_scale"),
                numpy_helper.from_array(np.array(1 / 256, np.float32), f"{stem}_sigmoid_scale"),
                numpy_helper.from_array(np.array(0, np.uint8), f"{stem}_sigmoid_zero_point"),
            ]
        )
