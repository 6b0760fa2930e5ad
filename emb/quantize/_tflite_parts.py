"""Cuts some operations out of a .tflite model as a model of their own. Changes no weight and runs nothing."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from emb.graph import flatbuffer as fb


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """content: of a .tflite file.  inputs, outputs: names of its border's tensors, as in the whole model."""

    content: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def part(model: Any, places: Collection[int]) -> Part:
    """The operations in `places` of the schema ModelT's main subgraph, which is not changed.

    Inputs are what they read and do not write; outputs what they write and others read, or the model returns.
    """
    whole = model.subgraphs[0]
    inside = [copy.copy(operator) for place, operator in enumerate(whole.operators) if place in places]
    outside = [operator for place, operator in enumerate(whole.operators) if place not in places]
    written = _indices(operator.outputs for operator in inside)
    read_outside = {*_indices(operator.inputs for operator in outside), *map(int, whole.outputs)}
    inputs = [
        index
        for index in _indices(operator.inputs for operator in inside)
        if index not in written and not fb.is_constant(model, whole.tensors[index])
    ]
    outputs = [index for index in written if index in read_outside]
    names = {index: fb.tensor_name(whole.tensors[index]) for index in (*inputs, *outputs)}
    cut = copy.copy(model)
    subgraph = copy.copy(whole)
    subgraph.tensors = [copy.copy(tensor) for tensor in whole.tensors]
    subgraph.operators = inside
    subgraph.inputs, subgraph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    cut.subgraphs, cut.signatureDefs, cut.metadata = [subgraph], None, None
    fb.drop_unused_tensors(cut)
    drop_unused_buffers(cut)
    return Part(
        content=fb.pack(cut),
        inputs=tuple(names[index] for index in inputs),
        outputs=tuple(names[index] for index in outputs),
    )


def drop_unused_buffers(model: Any) -> None:
    """Leave the buffers that a tensor names; edits the schema ModelT."""
    # Buffer 0 is empty by the schema's convention.
    used = [0, *sorted({tensor.buffer for graph in model.subgraphs for tensor in graph.tensors} - {0})]
    model.buffers = [model.buffers[index] for index in used]
    position = {index: place for place, index in enumerate(used)}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = position[tensor.buffer]


def _indices(lists: Any) -> list[int]:
    """Every index once, in order of appearance."""
    return [index for index in dict.fromkeys(int(one) for indices in lists for one in indices) if index != -1]
