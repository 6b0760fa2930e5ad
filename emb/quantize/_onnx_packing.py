"""Packs neighbouring pixels into the channels of the convolutions of an ONNX graph in QDQ form.

ONNX Runtime computes such a convolution with channels last, so that the transposes around it cancel with its own; see
_packing for what is gained. Where a MaxPool follows, the rows that it reads become channels, too, in an order in which
its places stand one behind the other; behind it memory is as before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize import _onnx_graph as og
from emb.quantize._packing import Convolution, Packing, packing

_TO_LAST, _TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
# Of fewer channels than this ONNX Runtime looks for a tap's address about as long as it multiplies.
_WIDE_TAP = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A convolution of integers. widened: the DequantizeLinear of its image, its weights and its bias, if it has one.
    narrow: what stands behind it.  image, output: (1, channels, height, width).  kernel: (height, width).
    pads: top, left, bottom, right.  strides: down, right.
    """

    node: Any
    widened: tuple[Any, ...]
    narrow: Any
    image: tuple[int, ...]
    output: tuple[int, ...]
    kernel: tuple[int, ...]
    pads: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def along_width(self) -> Convolution:
        return Convolution(
            width=self.image[3],
            channels=self.image[1],
            maps=self.output[1],
            taps=self.kernel[1],
            stride=self.strides[1],
            before=self.pads[1],
            after=self.pads[3],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edited:
    """shapes: {tensor: its shape, channels first}.  regrouped: {tensor: the one that `_regroup` made it of}."""

    graph: Any
    shapes: dict[str, tuple[int, ...]]
    regrouped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    """A MaxPool of integers, of neighbours that do not overlap. widen, narrow: what stands before and behind it.

    size: rows, columns.
    """

    node: Any
    widen: Any
    narrow: Any
    size: tuple[int, int]


def pack_pixels(model: Any, *, lanes: int, maps: int) -> int:
    """Edit a ModelProto in place, wherever that is worth it; its answers keep their bits.

    lanes, maps: see `packing`. Returns how many convolutions were packed.
    """
    import onnx

    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: og.shape_of(value) for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    edited = _Edited(graph=graph, shapes=shapes)
    count = 0
    for node in [node for node in graph.node if node.op_type == "Conv"]:
        found = _packable(graph, node, shapes)
        way = packing(found.along_width, lanes=lanes, maps=maps) if found else None
        if found and way:
            _pack(edited, found, way, _poolable(graph, found, way))
            count += 1
    if count:
        og.drop_unread(graph)
        og.order(graph)
    return count


def _packable(graph: Any, node: Any, shapes: dict[str, tuple[int, ...]]) -> _Found | None:
    import onnx

    writers = {name: one for one in graph.node for name in one.output}
    held = og.constants(graph)
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    widened = tuple(writers[name] for name in node.input if name in writers)
    behind = [one for one in graph.node if node.output[0] in one.input]
    image, output = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
    if len(widened) != len(node.input) or [one.op_type for one in behind] != ["QuantizeLinear"]:
        return None
    if any(one.op_type != "DequantizeLinear" for one in widened):
        return None
    if not all(name in held for one in widened[1:] for name in one.input):
        return None
    if len(image) != 4 or len(output) != 4 or 0 in (*image, *output):
        return None
    if attributes.get("group", 1) != 1 or set(attributes.get("dilations", [1])) != {1} or _pads_itself(attributes):
        return None
    return _Found(
        node=node,
        widened=widened,
        narrow=behind[0],
        image=image,
        output=output,
        kernel=tuple(held[widened[1].input[0]].dims[2:]),
        pads=tuple(attributes.get("pads", (0, 0, 0, 0))),
        strides=tuple(attributes.get("strides", (1, 1))),
    )


def _poolable(graph: Any, found: _Found, way: Packing) -> _Pool | None:
    """The pool that alone reads the convolution, if its rows are worth packing and its places fill the packed ones."""
    import onnx

    if way.pixels * found.image[1] >= _WIDE_TAP:
        return None
    chain, readers, outputs = [found.narrow], og.readers_of(graph), {value.name for value in graph.output}
    for kind in ("DequantizeLinear", "MaxPool", "QuantizeLinear"):
        behind = readers.get(chain[-1].output[0], [])
        if [one.op_type for one in behind] != [kind] or chain[-1].output[0] in outputs:
            return None
        chain += behind
    _, widen, node, narrow = chain
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    size = tuple(attributes["kernel_shape"])
    if tuple(attributes.get("strides", (1, 1))) != size or _pads_itself(attributes):
        return None
    if any(attributes.get("pads", ())) or set(attributes.get("dilations", [1])) != {1}:
        return None
    if found.output[2] % size[0] or way.outputs % size[1]:
        return None
    return _Pool(node=node, widen=widen, narrow=narrow, size=size)


def _pads_itself(attributes: dict[str, Any]) -> bool:
    return attributes.get("auto_pad", b"NOTSET") != b"NOTSET"


def _pack(edited: _Edited, found: _Found, way: Packing, pool: _Pool | None) -> None:
    graph, shapes = edited.graph, edited.shapes
    node, narrow, (image, weights, *biases) = found.node, found.narrow, found.widened
    name, stored = node.output[0], narrow.output[0]
    rows, columns = pool.size if pool else (1, 1)

    def kernel(values: NDArray[Any]) -> NDArray[Any]:
        packed = way.kernel(values.transpose(_TO_LAST), stride=found.strides[1])
        packed = _by_places(packed, rows=rows, columns=columns, maps=len(values), stride=found.strides[0])
        return np.ascontiguousarray(packed.transpose(_TO_FIRST))

    def repeated(values: NDArray[Any]) -> NDArray[Any]:
        return np.tile(values, way.outputs * rows) if values.ndim else values

    _, channels, height, width = found.image
    pixels = _own(graph, f"{name}_pixels")
    shapes[image.input[0]], shapes[stored] = found.image, found.output
    shapes[pixels] = (1, way.pixels * channels, height, width // way.pixels)
    node.input[:] = [
        _copy(graph, image, f"{name}_image", stored=_regrouped(edited, image.input[0], pixels)),
        _changed(graph, weights, f"{name}_weights", values=kernel, codes=repeated),
        *(_changed(graph, bias, f"{name}_bias", values=repeated, codes=repeated) for bias in biases),
    ]
    _set(
        node,
        kernel_shape=[found.kernel[0] + (rows - 1) * found.strides[0], way.taps],
        pads=[found.pads[0], way.before, found.pads[2], way.after],
        strides=[rows * found.strides[0], 1],
    )
    _, maps, height, width = found.output
    narrow.output[0] = packed = _own(graph, f"{name}_packed")
    shapes[packed] = (1, way.outputs * rows * maps, height // rows, width // way.outputs)
    if pool is None:
        _regroup(edited, packed, stored)
    else:
        _pool_places(edited, pool, packed, maps=maps)


def _pool_places(edited: _Edited, pool: _Pool, packed: str, *, maps: int) -> None:
    """Let the pool read `packed`, where its places stand one behind the other."""
    graph, shapes = edited.graph, edited.shapes
    places = pool.size[0] * pool.size[1]
    _, channels, height, width = shapes[packed]
    stored, pooled = pool.narrow.output[0], _own(graph, f"{pool.node.output[0]}_packed")
    by_places = _own(graph, f"{packed}_places")
    shapes[by_places] = (1, channels // places, height, width * places)
    shapes[pooled] = (1, channels // places, height, width)
    shapes[stored] = (1, maps, height, width * channels // places // maps)
    pool.widen.input[0], pool.narrow.output[0] = by_places, pooled
    _set(pool.node, kernel_shape=[1, places], strides=[1, places])
    _regroup(edited, packed, by_places)
    _regroup(edited, pooled, stored)


def _by_places(weights: NDArray[Any], *, rows: int, columns: int, maps: int, stride: int) -> NDArray[Any]:
    """The kernel that computes `rows` rows, `stride` apart, as channels: first those of the pool's first place.

    weights: (outputs * maps, height, width, channels of the image), the outputs being neighbours in one row.
    """
    _, height, *rest = weights.shape
    by_columns = weights.reshape(-1, columns, maps, height, *rest).swapaxes(0, 1)
    made = np.zeros((rows, *by_columns.shape[:3], height + (rows - 1) * stride, *rest), weights.dtype)
    for row in range(rows):
        made[row, ..., row * stride : row * stride + height, :, :] = by_columns
    return made.reshape(len(weights) * rows, -1, *rest)


def _set(node: Any, **attributes: list[int]) -> None:
    import onnx

    kept = [one for one in node.attribute if one.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(onnx.helper.make_attribute(key, value) for key, value in attributes.items())])


def _regrouped(edited: _Edited, source: str, target: str) -> str:
    """`target`, made of `source` or of what that was made of; the latter itself where it has the shape already."""
    source = edited.regrouped.get(source, source)
    if edited.shapes[source] == edited.shapes[target]:
        return source
    _regroup(edited, source, target)
    return target


def _regroup(edited: _Edited, source: str, target: str) -> None:
    """Add nodes that make `target` of `source`, both with channels first; with channels last no value is moved."""
    import onnx

    graph, shapes = edited.graph, edited.shapes
    edited.regrouped[target] = source
    _, channels, height, width = shapes[target]
    # With a single channel, first and last are the same.
    if shapes[source][1] > 1:
        last = _own(graph, f"{target}_last")
        graph.node.append(onnx.helper.make_node("Transpose", [source], [last], name=last, perm=_TO_LAST))
        source = last
    grouped, wanted = (_own(graph, f"{target}_{part}") for part in ("grouped", "shape"))
    shape = np.array((1, height, width, channels), np.int64)
    graph.initializer.append(onnx.numpy_helper.from_array(shape, wanted))
    graph.node.extend(
        [
            onnx.helper.make_node("Reshape", [source, wanted], [grouped], name=grouped),
            onnx.helper.make_node("Transpose", [grouped], [target], name=f"{target}_first", perm=_TO_FIRST),
        ]
    )


def _changed(
    graph: Any,
    widen: Any,
    name: str,
    *,
    values: Callable[[NDArray[Any]], NDArray[Any]],
    codes: Callable[[NDArray[Any]], NDArray[Any]],
) -> str:
    """The output of another DequantizeLinear, of changed constants."""
    import onnx

    held = og.constants(graph)
    names = [_own(graph, f"{name}_{part}") for part in ("quantized", "scale", "zero_point")]
    for old, new, change in zip(widen.input, names, (values, codes, codes), strict=False):
        array = change(onnx.numpy_helper.to_array(held[old]))
        graph.initializer.append(onnx.numpy_helper.from_array(array, new))
    made = _copy(graph, widen, name, stored=names[0])
    graph.node[-1].input[1:] = names[1 : len(widen.input)]
    return made


def _copy(graph: Any, widen: Any, name: str, *, stored: str) -> str:
    """The output of another DequantizeLinear like this one, that reads `stored`."""
    node = type(widen).FromString(widen.SerializeToString())
    node.input[0] = stored
    node.name = node.output[0] = _own(graph, name)
    graph.node.append(node)
    return str(node.output[0])


def _own(graph: Any, name: str) -> str:
    """The name, or a longer one if it is taken."""
    taken = {one for node in graph.node for one in (node.name, *node.input, *node.output)}
    return og.free_name(name, taken | set(og.constants(graph)))
