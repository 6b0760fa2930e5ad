"""Packs neighbouring pixels into the channels of the convolutions of an ONNX graph in QDQ form.

ONNX Runtime computes such a convolution with channels last, so that the transposes around it cancel with its own; see
_packing for what is gained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize import _onnx_graph as og
from emb.quantize._packing import Convolution, Packing, packing

_TO_LAST, _TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


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


def pack_pixels(model: Any, *, lanes: int, maps: int) -> int:
    """Edit a ModelProto in place, wherever that is worth it; its answers keep their bits.

    lanes, maps: see `packing`. Returns how many convolutions were packed.
    """
    import onnx

    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: og.shape_of(value) for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    count = 0
    for node in [node for node in graph.node if node.op_type == "Conv"]:
        found = _packable(graph, node, shapes)
        way = packing(found.along_width, lanes=lanes, maps=maps) if found else None
        if found and way:
            _pack(graph, found, way)
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


def _pads_itself(attributes: dict[str, Any]) -> bool:
    return attributes.get("auto_pad", b"NOTSET") != b"NOTSET"


def _pack(graph: Any, found: _Found, way: Packing) -> None:
    import onnx

    node, narrow, (image, weights, *biases) = found.node, found.narrow, found.widened
    name = node.output[0]

    def kernel(values: NDArray[Any]) -> NDArray[Any]:
        packed = way.kernel(values.transpose(_TO_LAST), stride=found.strides[1])
        return np.ascontiguousarray(packed.transpose(_TO_FIRST))

    def repeated(values: NDArray[Any]) -> NDArray[Any]:
        return np.tile(values, way.outputs) if values.ndim else values

    _, channels, height, width = found.image
    pixels = _own(graph, f"{name}_pixels")
    shape = (1, height, width // way.pixels, way.pixels * channels)
    _regroup(graph, image.input[0], pixels, shape=shape, channels=channels)
    node.input[:] = [
        _copy(graph, image, f"{name}_image", stored=pixels),
        _changed(graph, weights, f"{name}_weights", values=kernel, codes=repeated),
        *(_changed(graph, bias, f"{name}_bias", values=repeated, codes=repeated) for bias in biases),
    ]
    _, maps, height, width = found.output
    stored = narrow.output[0]
    narrow.output[0] = _own(graph, f"{name}_packed")
    _regroup(graph, narrow.output[0], stored, shape=(1, height, width, maps), channels=way.outputs * maps)
    changed = {
        "kernel_shape": [found.kernel[0], way.taps],
        "pads": [found.pads[0], way.before, found.pads[2], way.after],
        "strides": [found.strides[0], 1],
    }
    kept = [one for one in node.attribute if one.name not in changed]
    del node.attribute[:]
    node.attribute.extend([*kept, *(onnx.helper.make_attribute(key, value) for key, value in changed.items())])


def _regroup(graph: Any, source: str, target: str, *, shape: tuple[int, ...], channels: int) -> None:
    """Add nodes that make `target` of `source`, both with channels first.

    shape: of `target`, with channels last.  channels: of `source`; with a single one, first and last are the same.
    """
    import onnx

    if channels > 1:
        last = _own(graph, f"{target}_last")
        graph.node.append(onnx.helper.make_node("Transpose", [source], [last], name=last, perm=_TO_LAST))
        source = last
    grouped, wanted = (_own(graph, f"{target}_{part}") for part in ("grouped", "shape"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape, np.int64), wanted))
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
