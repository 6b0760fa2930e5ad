"""Moves zero padding into the max pooling behind it. Changes no number.

ONNX Runtime has no integer Pad: between integer operations it would widen the tensor, pad it as floats and round again.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def pad_inside_pooling(model: Any) -> None:
    """Edit a float ONNX ModelProto in place: Relu -> Pad with zeros -> MaxPool becomes Relu -> MaxPool with pads.

    MaxPool ignores what it pads, where Pad offers zeros; the maximum is the same as none of the values is negative
    and every window holds one of them. What is not certain to be so stays as it is.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for pooling in list(graph.node):
        pad = makers.get(pooling.input[0]) if pooling.op_type == "MaxPool" else None
        if pad is None or pad.op_type != "Pad" or len(readers[pad.output[0]]) > 1:
            continue
        source = makers.get(pad.input[0])
        pads = _zeros_around(pad, constants)
        if source is not None and source.op_type == "Relu" and pads and _pads_nothing(pooling, pads):
            _set_pads(pooling, pads)
            pooling.input[0] = pad.input[0]
            graph.node.remove(pad)


def _zeros_around(pad: Any, constants: dict[str, Any]) -> list[int]:
    """[top, left, bottom, right] of zeros that `pad` puts around an NCHW tensor; empty if it does anything else."""
    from onnx import numpy_helper

    if pad.attribute and any(attribute.s != b"constant" for attribute in pad.attribute if attribute.name == "mode"):
        return []
    if pad.input[1] not in constants or any(name not in constants for name in pad.input[2:] if name):
        return []
    if any(np.any(numpy_helper.to_array(constants[name])) for name in pad.input[2:] if name):
        return []
    pads = numpy_helper.to_array(constants[pad.input[1]]).tolist()
    batch_and_channels = (pads[:2] + pads[4:6]) if len(pads) == 8 else [1]
    return [] if any(batch_and_channels) or min(pads) < 0 else [*pads[2:4], *pads[6:8]]


def _pads_nothing(pooling: Any, pads: list[int]) -> bool:
    """Whether the pooling itself pads and dilates nothing yet, and its kernel is larger than what is to be added."""
    attributes = {attribute.name: attribute for attribute in pooling.attribute}
    kernel = attributes["kernel_shape"].ints
    plain = all(
        (name != "pads" or not any(attribute.ints))
        and (name != "auto_pad" or attribute.s in (b"NOTSET", b"VALID"))
        and (name != "dilations" or set(attribute.ints) == {1})
        and (name != "ceil_mode" or attribute.i == 0)
        for name, attribute in attributes.items()
    )
    return plain and all(added < side for added, side in zip(pads, [*kernel, *kernel], strict=True))


def _set_pads(pooling: Any, pads: list[int]) -> None:
    import onnx

    kept = [attribute for attribute in pooling.attribute if attribute.name not in ("pads", "auto_pad")]
    del pooling.attribute[:]
    pooling.attribute.extend([*kept, onnx.helper.make_attribute("pads", pads)])
