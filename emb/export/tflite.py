"""Writes a Keras model as a float32 .tflite of batch 1, and reads any .tflite file's border. Quantizes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.errors import ModelError
from emb.export._converter import converting
from emb.export._tflite_names import shorten_names
from emb.export._tflite_weights import insert_weights
from emb.graph import flatbuffer as fb
from emb.spec.contract import Layout, Pixels, TensorContract

if TYPE_CHECKING:
    import keras


def export(model: keras.Model, path: Path, *, pixels: Pixels = Pixels()) -> None:  # noqa: B008  a frozen value
    """Write `model`, one image (height, width, channels) to (classes,) scores, as a float32 .tflite to `path`.

    The file's input is (1, height, width, channels) float32 raw pixels, 0..255.
    pixels: how what the model takes follows from them; (1, 0) for a model that scales them itself.
    Scaling, also a leading Rescaling or Normalization, goes into the first layer's weights where that is exact.
    The same model gives the same bytes. Raises ModelError for other inputs, ExportError with the converter's words.
    """
    from emb.export._inference import as_function, weight_input

    with converting(
        f"the model {model.name} could not be converted to TFLite",
        fix="replace the layer that the converter names by one with a TFLite operation",
    ):
        function, weights = as_function(model, pixels=pixels)
        converted = fb.unpack(convert(function))
        insert_weights(converted, {weight_input(place): one for place, one in enumerate(weights)})
    # Keras opens a model's scope a second time to call it.
    shorten_names(converted, scope=f"{model.name}_1")
    path.write_bytes(fb.pack(converted))


def convert(function: Any) -> bytes:
    """The .tflite of a tf.function with one static input signature."""
    import tensorflow as tf

    # Without the model as second argument: with it, the graph keeps variables and shape arithmetic.
    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()]).convert()


def border(path: Path) -> tuple[TensorContract, TensorContract]:
    """(input, output) of a .tflite file as the file states them.

    Raises ModelError if it is no readable .tflite or has not exactly one input and one output.
    """
    graph = read_graph(path)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ModelError(
            f"{path.name} has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs",
            why="emb deploys image classifiers: one image in, one row of scores out",
            fix="export the part of the model from the one input to the one output that classifies",
        )
    return _contract(graph.tensors[graph.inputs[0]]), _contract(graph.tensors[graph.outputs[0]])


def read_graph(path: Path) -> Any:
    """The main subgraph of a .tflite file, as the schema's SubGraphT. Raises ModelError if there is none."""
    return _read(path).subgraphs[0]


def operation_names(path: Path) -> list[str]:
    """The schema's names of the main subgraph's operations, in the order in which they run."""
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    model = _read(path)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [names.get(codes[operator.opcodeIndex], "CUSTOM") for operator in model.subgraphs[0].operators]


def _read(path: Path) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read", why=error.strerror or str(error)) from error
    fault = "" if content[4:8] == b"TFL3" else "it lacks the mark TFL3"
    if not fault:
        try:
            model = schema.ModelT.InitFromPackedBuf(content, 0)
            if model.subgraphs and model.subgraphs[0].operators:
                return model
            fault = "it holds no operation"
        except Exception as error:
            fault = f"its tables do not fit together ({type(error).__name__})"
    raise ModelError(
        f"{path.name} is not a readable .tflite file",
        why=f"{fault}; the file is of another kind, cut off or damaged",
        fix="copy or export the file again",
    )


def _contract(tensor: Any) -> TensorContract:
    shape = tuple(int(size) for size in tensor.shape)
    layout: Layout = "NHWC" if len(shape) == 4 else "NC"
    quantization = tensor.quantization
    is_quantized = quantization is not None and quantization.scale is not None and len(quantization.scale) == 1
    return TensorContract(
        name=tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name),
        shape=shape,
        dtype=type_name(tensor.type),
        layout=layout,
        scale=float(quantization.scale[0]) if is_quantized else None,
        zero_point=int(quantization.zeroPoint[0]) if is_quantized else None,
    )


def type_name(code: int) -> str:
    """numpy's name of a tensor type of the schema, such as int8."""
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    return names.get(code, str(code))
