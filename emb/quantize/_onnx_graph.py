"""Reads, prepares, orders and runs ONNX graphs for the quantizer. Knows no quantization scheme."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import ExportError, ModelError
from emb.quantize._ranges import Activations

# DequantizeLinear has an axis since 13; ORT's quantizer and tf2onnx agree on 17.
OPSET = 17
# ONNX Runtime's levels of what it prints: 3 leaves errors, which also arrive as exceptions.
_ERRORS_ONLY = 3


def load(path: Path) -> Any:
    """The file as an onnx ModelProto. Raises ModelError if it is none."""
    import onnx

    try:
        return onnx.load(path)
    except Exception as error:
        raise ModelError(
            f"{path.name} is not a readable .onnx file", why=str(error).splitlines()[0], fix="export the file again"
        ) from error


def prepared(model: Any) -> Any:
    """The model as ONNX Runtime simplifies it without leaving ONNX: constants computed, BatchNormalization folded.

    Shapes are inferred, opset 17 at least.
    """
    import onnx
    import onnxruntime as ort

    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < OPSET:
        model = onnx.version_converter.convert_version(model, OPSET)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prepared.onnx"
        options = _options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        _session(model, options)
        model = onnx.load(path)
    return onnx.shape_inference.infer_shapes(model)


def activations(model: Any, images: NDArray[np.float32]) -> Iterator[Activations]:
    """One {tensor name: values} per image, for every float tensor that an operation writes.

    images: (n, ...) real values of the model's input, in its own layout.
    """
    import onnx

    observed = copied(model)
    graph = observed.graph
    outputs = {value.name for value in graph.output}
    floats = [
        value
        for value in graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in outputs
    ]
    made = {name for node in graph.node for name in node.output}
    graph.output.extend(value for value in floats if value.name in made)
    session = _session(observed, _options())
    names = [output.name for output in session.get_outputs()]
    for image in images:
        values = session.run(names, {session.get_inputs()[0].name: image[np.newaxis]})
        yield dict(zip(names, values, strict=True))


def copied(model: Any) -> Any:
    """Another ModelProto of the same content, for what changes the one it is given."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def order(graph: Any) -> None:
    """Sort the operations so that each stands behind those it reads from: by the longest way to it, and stable."""
    levels = _levels(graph)
    ordered = [graph.node[place] for place in sorted(range(len(graph.node)), key=levels.__getitem__)]
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def drop_unread(graph: Any) -> None:
    """Remove operations whose outputs nobody reads, and then constants."""
    outputs = {value.name for value in graph.output}
    while True:
        read = {name for node in graph.node for name in node.input} | outputs
        idle = [node for node in graph.node if not read & set(node.output)]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


def _levels(graph: Any) -> list[int]:
    """Of each operation, how many stand before it on the longest way. Raises ExportError if there is a cycle."""
    nodes = list(graph.node)
    maker = {name: place for place, node in enumerate(nodes) for name in node.output}
    before = [{maker[name] for name in node.input if name in maker} for node in nodes]
    behind: list[list[int]] = [[] for _ in nodes]
    for place, makers in enumerate(before):
        for one in makers:
            behind[one].append(place)
    missing = [len(makers) for makers in before]
    levels = [0] * len(nodes)
    ready = [place for place, count in enumerate(missing) if count == 0]
    for place in ready:
        for reader in behind[place]:
            levels[reader] = max(levels[reader], levels[place] + 1)
            missing[reader] -= 1
            if missing[reader] == 0:
                ready.append(reader)
    if len(ready) < len(nodes):
        raise ExportError("the ONNX graph has a cycle", fix="export the model again")
    return levels


def free_name(wanted: str, taken: set[str]) -> str:
    """The name, with underscores behind it if it is taken; taken from now on."""
    while wanted in taken:
        wanted += "_"
    taken.add(wanted)
    return wanted


def readers_of(graph: Any) -> dict[str, list[Any]]:
    """{tensor: the operations that read it}; one that reads it twice stands there twice."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def constants(graph: Any) -> dict[str, Any]:
    """{name: TensorProto} of the values that the file holds."""
    return {tensor.name: tensor for tensor in graph.initializer}


def model_input(graph: Any) -> Any:
    """The ValueInfoProto of the one input that is no constant."""
    held = constants(graph)
    return next(value for value in graph.input if value.name not in held)


def shape_of(value: Any) -> tuple[int, ...]:
    """A ValueInfoProto's shape; 0 for a size that is not fixed."""
    return tuple(size.dim_value for size in value.type.tensor_type.shape.dim)


def is_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether a 4-D input is (1, height, width, channels): 1 or 3 at the end and not in second place."""
    return shape[3] in (1, 3) and shape[1] not in (1, 3)


def _options() -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    # One thread: the same sums in the same order on every run.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def _session(model: Any, options: Any) -> Any:
    import onnxruntime as ort

    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            "ONNX Runtime cannot load the float model",
            why=str(error).strip().splitlines()[0],
            fix="export it with opset 13 to 18, static shapes and batch 1",
        ) from error
