"""Writes a Keras model as a float32 .onnx of batch 1, and reads any .onnx file's border. Quantizes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import ExportError, ModelError
from emb.export._converter import ConverterLog, converting
from emb.export._onnx_padding import pad_inside_pooling
from emb.export._onnx_tidy import tidy
from emb.export._onnx_weights import insert_weights
from emb.spec.contract import Layout, Pixels, TensorContract

if TYPE_CHECKING:
    import keras

# tf2onnx 1.17 writes opset 17 and 18 correctly, 21 not; per-channel DequantizeLinear needs 13.
OPSET = 17
INPUT, OUTPUT = "image", "scores"


def export(model: keras.Model, path: Path, *, pixels: Pixels = Pixels()) -> None:  # noqa: B008  a frozen value
    """Write `model`, one image (height, width, channels) to (classes,) scores, as a float32 .onnx to `path`.

    The file's input is (1, channels, height, width) float32 raw pixels; opset 17. `pixels` and the folding of
    scaling as for TFLite.
    The same model gives the same bytes. Raises ModelError for other inputs, ExportError with the converter's words.
    """
    from emb.export._inference import as_function

    with converting(
        f"the model {model.name} could not be converted to ONNX",
        fix="replace the layer that the converter names by one with an ONNX operation",
    ) as log:
        function, weights = as_function(model, pixels=pixels)
        content = convert(function, name=model.name, log=log, weights=weights)
    path.write_bytes(content)


def convert(function: Any, *, name: str, log: ConverterLog, weights: Sequence[NDArray[np.float32]] = ()) -> bytes:
    """The .onnx of a tf.function with one static input signature named `image`, 4-D and channels last.

    weights: for the function's further inputs, as `as_function` gives them.
    """
    import tf2onnx

    from emb.export._inference import weight_input

    model, _ = tf2onnx.convert.from_function(
        function, input_signature=function.input_signature, opset=OPSET, inputs_as_nchw=[INPUT]
    )
    insert_weights(model, {weight_input(place): values for place, values in enumerate(weights)})
    _check_converted(model, name=name, log=log)
    pad_inside_pooling(model)
    tidy(model, output=OUTPUT)
    model.graph.name = name
    model.producer_name, model.producer_version = "emb", ""
    return model.SerializeToString(deterministic=True)


def _check_converted(model: Any, *, name: str, log: ConverterLog) -> None:
    """tf2onnx only logs what it cannot convert, and leaves TensorFlow's operation in the file."""
    import onnx

    foreign = sorted({node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type, node.domain)})
    if foreign:
        said = [line for line in log.text().splitlines() if "nsupported" in line]
        raise ExportError(
            f"the model {name} could not be converted to ONNX",
            why="\n       ".join([f"no ONNX operation for {', '.join(foreign)}", *said[-3:]]),
            fix="replace the layer behind it, or export TFLite only",
        )
    onnx.checker.check_model(model)


def border(path: Path) -> tuple[TensorContract, TensorContract]:
    """(input, output) of an .onnx file as the file states them.

    An integer tensor's scale and zero point are those of the DequantizeLinear that reads it, or of the
    QuantizeLinear that writes it. Raises ModelError if the file is no readable .onnx or has not exactly one input
    and one output of known shape.
    """
    return border_of(path, read_model(path))


def border_of(path: Path, model: Any) -> tuple[TensorContract, TensorContract]:
    """`border` of an onnx ModelProto; path: for messages."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ModelError(
            f"{path.name} has {len(inputs)} inputs and {len(graph.output)} outputs",
            why="emb deploys image classifiers: one image in, one row of scores out",
            fix="export the part of the model from the one input to the one output that classifies",
        )
    return _contract(path, graph, inputs[0]), _contract(path, graph, graph.output[0])


def read_model(path: Path) -> Any:
    """The file as an onnx ModelProto. Raises ModelError if it is none."""
    import onnx

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError as error:
        raise ModelError(f"{path} cannot be read", why=error.strerror or str(error)) from error
    except Exception as error:
        raise ModelError(
            f"{path.name} is not a readable .onnx file",
            why=str(error).strip().splitlines()[0],
            fix="copy or export the file again",
        ) from error
    return model


def _contract(path: Path, graph: Any, value: Any) -> TensorContract:
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(size.dim_value for size in tensor.shape.dim)
    if not shape or 0 in shape:
        raise ModelError(
            f"{path.name}: the shape of {value.name} is not fixed",
            why="a deployed graph is static",
            fix="export the model with batch size 1 and a fixed height and width",
        )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    scale, zero_point = _quantization(graph, value.name)
    return TensorContract(
        name=value.name, shape=shape, dtype=dtype, layout=layout_of(shape), scale=scale, zero_point=zero_point
    )


def layout_of(shape: tuple[int, ...]) -> Layout:
    """Where the 1 or 3 channels stand; (1, 3, 3, 3) and the like are NCHW, as ONNX has it."""
    if len(shape) != 4:
        return "NC"
    return "NHWC" if shape[1] not in (1, 3) and shape[3] in (1, 3) else "NCHW"


def _quantization(graph: Any, name: str) -> tuple[float | None, int | None]:
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        reads = node.op_type == "DequantizeLinear" and node.input[0] == name
        writes = node.op_type == "QuantizeLinear" and node.output[0] == name
        if reads or writes:
            scale, zero_point = (numpy_helper.to_array(constants[part]) for part in node.input[1:3])
            return float(scale), int(zero_point)
    return None, None
