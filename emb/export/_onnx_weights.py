"""Puts weights into an ONNX graph that was converted without them. Knows neither Keras nor TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def insert_weights(model: Any, weights: dict[str, NDArray[np.float32]]) -> None:
    """Edit an onnx ModelProto in place: each named input becomes a constant.

    What the converter would have computed of the values alone (the transposition to ONNX's order of axes) is
    computed here, so that the file is the same as if it had known them.
    """
    from onnx import numpy_helper

    graph = model.graph
    for value in [value for value in graph.input if value.name in weights]:
        graph.input.remove(value)
    values = dict(weights)
    integers = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) <= 1}
    kept = []
    for node in graph.node:
        computed = _computed(node, values, integers) if node.input and node.input[0] in values else None
        if computed is None:
            kept.append(node)
        else:
            values[node.output[0]] = computed
    used = {name for node in kept for name in node.input}
    nodes = [type(node).FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)
    for name in [name for name in values if name in used]:
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values.pop(name)), name))


def _computed(node: Any, values: dict[str, NDArray[np.float32]], integers: dict[str, Any]) -> Any:
    """What the operation makes of weights; None for one that computes or that reads anything else."""
    from onnx import helper, numpy_helper

    value = values[node.input[0]]
    if node.op_type == "Identity":
        return value
    if node.op_type == "Transpose":
        axes = [helper.get_attribute_value(one) for one in node.attribute if one.name == "perm"]
        return value.transpose(axes[0]) if axes else value.transpose()
    if node.op_type == "Reshape" and node.input[1] in integers:
        return value.reshape([int(size) for size in numpy_helper.to_array(integers[node.input[1]])])
    return None
