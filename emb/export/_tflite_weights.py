"""Puts weights into a .tflite that was converted without them. Knows neither Keras nor TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import ExportError
from emb.graph.flatbuffer import drop_unused_tensors, operation_name, tensor_name


def insert_weights(model: Any, weights: dict[str, NDArray[np.float32]]) -> None:
    """Edit a schema ModelT in place: each named input becomes a constant.

    The TRANSPOSE by which the converter brings a weight into TFLite's order of axes is computed here.
    Raises ExportError if another operation rearranges a weight.
    """
    from ai_edge_litert import schema_py_generated as schema

    if not weights:
        return
    graph = model.subgraphs[0]
    values = {
        int(index): weights[name] for index in graph.inputs if (name := tensor_name(graph.tensors[index])) in weights
    }
    inputs = set(values)
    kept = []
    for operator in graph.operators:
        index = int(operator.inputs[0])
        if index not in values:
            _refuse_batch_matmul(model, operator, values)
            kept.append(operator)
            continue
        values[int(operator.outputs[0])] = _transposed(model, graph, operator, values[index])
    graph.operators = kept
    read = {int(index) for operator in kept for index in operator.inputs}
    for index in sorted(set(values) & read):
        buffer = schema.BufferT()
        buffer.data = np.ascontiguousarray(values[index], np.float32).reshape(-1).view(np.uint8)
        model.buffers.append(buffer)
        graph.tensors[index].buffer = len(model.buffers) - 1
    graph.inputs = np.array([index for index in graph.inputs if int(index) not in inputs], np.int32)
    _drop_from_signatures(model, inputs)
    drop_unused_tensors(model)


def _refuse_batch_matmul(model: Any, operator: Any, values: dict[int, Any]) -> None:
    """It has no field for the activation behind it, which the converter then loses."""
    is_product = operation_name(model, operator) == "BATCH_MATMUL"
    if is_product and any(int(index) in values for index in operator.inputs):
        raise ExportError(
            "the weights could not be put into the TFLite model",
            why="the converter made a BATCH_MATMUL of a dense layer, which would lose its activation",
            fix="report this model; it needs a case of its own",
        )


def _transposed(model: Any, graph: Any, operator: Any, value: NDArray[np.float32]) -> NDArray[np.float32]:
    if operation_name(model, operator) != "TRANSPOSE":
        raise ExportError(
            "the weights could not be put into the TFLite model",
            why=f"the converter rearranges {tensor_name(graph.tensors[operator.inputs[0]])} by other than a TRANSPOSE",
            fix="report this model; it needs a case of its own",
        )
    axes = np.asarray(model.buffers[graph.tensors[operator.inputs[1]].buffer].data, np.uint8).view(np.int32)
    return value.transpose(axes)


def _drop_from_signatures(model: Any, inputs: set[int]) -> None:
    for signature in model.signatureDefs or []:
        signature.inputs = [entry for entry in signature.inputs if entry.tensorIndex not in inputs]
