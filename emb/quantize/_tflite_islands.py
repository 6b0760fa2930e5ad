"""Makes operations integer that ai-edge-quantizer leaves float although TFLite has an integer kernel for them.

It surrounds such an operation with DEQUANTIZE and QUANTIZE; where its neighbours' integers are all that the kernel
needs, both can go. An operation without an integer kernel stays, and is reported as float afterwards.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from emb.graph import flatbuffer as fb

# The kernel takes any scale in and any scale out.
_RESCALING = ("LEAKY_RELU", "ELU", "RELU6", "RELU_N1_TO_1")
# The kernel hands integers on, so that its output has its input's scale; a QUANTIZE behind it changes the scale.
_SELECTING = ("REDUCE_MAX", "SQUEEZE", "EXPAND_DIMS", "DEPTH_TO_SPACE")


def close_islands(model: Any, *, kept: Collection[str] = ()) -> None:
    """Edit a schema ModelT in place. kept: names of tensors whose operations stay float."""
    subgraph = model.subgraphs[0]
    for operator in list(subgraph.operators):
        operation = fb.operation_name(model, operator)
        if operation not in (*_RESCALING, *_SELECTING) or fb.tensor_name(_output(subgraph, operator)) in kept:
            continue
        widen = _writer(model, subgraph, operator.inputs[0], "DEQUANTIZE")
        narrow = _only_reader(model, subgraph, operator.outputs[0], "QUANTIZE")
        if widen is None or narrow is None:
            continue
        operator.inputs = np.array([widen.inputs[0], *list(operator.inputs)[1:]], np.int32)
        if operation in _RESCALING:
            operator.outputs = np.array(narrow.outputs, np.int32)
            subgraph.operators.remove(narrow)
        else:
            _take_over_code(subgraph, source=widen.inputs[0], target=operator.outputs[0])
        if not any(widen.outputs[0] in list(other.inputs) for other in subgraph.operators):
            subgraph.operators.remove(widen)
    fb.drop_unused_tensors(model)


def beside(model: Any, kept: Collection[str]) -> frozenset[str]:
    """`kept`, and the operations that stay float because one of `kept` is their neighbour: the names that they write.

    Between two floats there is no integer that such an operation could take or give.
    """
    subgraph = model.subgraphs[0]
    found = set(kept)
    islands = [
        operator
        for operator in subgraph.operators
        if fb.operation_name(model, operator) in (*_RESCALING, *_SELECTING)
        and fb.type_name(_output(subgraph, operator)) == "FLOAT32"
    ]
    grown = -1
    while grown != len(found):
        grown = len(found)
        floats = [one for one in subgraph.operators if fb.tensor_name(_output(subgraph, one)) in found]
        written, read = (
            {int(index) for one in floats for index in getattr(one, side)} for side in ("outputs", "inputs")
        )
        for operator in islands:
            if int(operator.inputs[0]) in written or int(operator.outputs[0]) in read:
                found.add(fb.tensor_name(_output(subgraph, operator)))
    return frozenset(found)


def _output(subgraph: Any, operator: Any) -> Any:
    return subgraph.tensors[operator.outputs[0]]


def _writer(model: Any, subgraph: Any, index: int, operation: str) -> Any:
    found = [operator for operator in subgraph.operators if index in list(operator.outputs)]
    return found[0] if found and fb.operation_name(model, found[0]) == operation else None


def _only_reader(model: Any, subgraph: Any, index: int, operation: str) -> Any:
    found = [operator for operator in subgraph.operators if index in list(operator.inputs)]
    return found[0] if len(found) == 1 and fb.operation_name(model, found[0]) == operation else None


def _take_over_code(subgraph: Any, *, source: int, target: int) -> None:
    subgraph.tensors[target].type = subgraph.tensors[source].type
    subgraph.tensors[target].quantization = subgraph.tensors[source].quantization
