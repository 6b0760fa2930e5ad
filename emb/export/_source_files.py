"""Opens float .tflite and .onnx files, which are deployable already. Runs neither."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.errors import ExportError, ModelError
from emb.export import onnx, tflite
from emb.export._source_keras import LOGITS_NOTE
from emb.spec.contract import Pixels, TensorContract

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RAW = Pixels()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A Source from a float .tflite or .onnx file; see emb.export.source. content: what `write` writes."""

    path: Path
    content: bytes
    input_shape: tuple[int, int, int]
    classes: int
    notes: tuple[str, ...]
    kind: str
    formats: tuple[str, ...]
    model: Any = None

    def write(self, path: Path, *, file_format: str, pixels: Pixels = RAW) -> Pixels:
        """See emb.export.source.Source.write; the file is the given one, with batch 1."""
        if file_format not in self.formats:
            raise ExportError(
                f"{self.path.name} cannot be written as {file_format}",
                why=f"emb does not convert between .tflite and .onnx; this is {self.kind}",
                fix=f"build {self.formats[0]} only, or give the Keras model that it was made from",
            )
        path.write_bytes(self.content)
        return pixels

    def predict(self, images: NDArray[np.generic], *, pixels: Pixels = RAW) -> None:
        """None: its predictions come from a runtime."""


def open_tflite(path: Path) -> FileSource:
    """The classifier in a float .tflite file. Errors as for emb.export.source.open_source."""
    given, scores = tflite.border(path)
    graph = tflite.read_graph(path)
    _check_float(path, {tflite.type_name(tensor.type) for tensor in graph.tensors})
    signature = graph.tensors[graph.inputs[0]].shapeSignature
    if signature is not None and -1 in list(signature)[1:]:
        raise _dynamic(path, tuple(signature))
    last = tflite.operation_names(path)[-1]
    return FileSource(
        path=path,
        content=path.read_bytes(),
        input_shape=_image_shape(path, given, channels=3),
        classes=_classes(path, scores),
        notes=() if last in ("SOFTMAX", "LOGISTIC") else (LOGITS_NOTE,),
        kind="a .tflite file",
        formats=("tflite",),
    )


def open_onnx(path: Path) -> FileSource:
    """The classifier in a float .onnx file, its batch fixed at 1. Errors as for emb.export.source.open_source."""
    model = onnx.read_model(path)
    held = {tensor.name for tensor in model.graph.initializer}
    for value in [*(value for value in model.graph.input if value.name not in held), *model.graph.output]:
        sizes = value.type.tensor_type.shape.dim
        if len(sizes) > 1 and sizes[0].dim_value == 0:
            sizes[0].dim_value = 1
    given, scores = onnx.border_of(path, model)
    kinds = {"quantized" for node in model.graph.node if "Linear" in node.op_type or "Integer" in node.op_type}
    _check_float(path, {given.dtype, *kinds})
    # Shapes that were inferred for another batch would contradict the new one.
    del model.graph.value_info[:]
    last = model.graph.node[-1].op_type if model.graph.node else ""
    return FileSource(
        path=path,
        content=model.SerializeToString(deterministic=True),
        input_shape=_image_shape(path, given, channels=1 if given.layout == "NCHW" else 3),
        classes=_classes(path, scores),
        notes=() if last in ("Softmax", "Sigmoid") else (LOGITS_NOTE,),
        kind="an .onnx file",
        formats=("onnx",),
    )


def _check_float(path: Path, kinds: set[str]) -> None:
    other = sorted(kinds & {"int8", "uint8", "int16", "float16", "int4", "float64", "quantized"})
    if other:
        raise ModelError(
            f"{path.name} is no float32 model",
            why=f"it holds {other[0]} tensors",
            fix="give the float32 model that it was made from",
        )


def _image_shape(path: Path, given: TensorContract, *, channels: int) -> tuple[int, int, int]:
    """channels: the axis that they stand on."""
    shape = given.shape
    if len(shape) != 4 or shape[channels] not in (1, 3):
        raise ModelError(
            f"{path.name} takes inputs of shape {shape}",
            why="emb needs one image with 1 or 3 channels: last in .tflite, first or last in .onnx",
            fix="export the model for images of 1 or 3 channels",
        )
    if shape[0] != 1:
        raise ModelError(
            f"{path.name} takes {shape[0]} images at once",
            why="a deployed graph takes one image",
            fix="export the model with batch size 1",
        )
    height, width = (shape[2], shape[3]) if channels == 1 else (shape[1], shape[2])
    return height, width, shape[channels]


def _classes(path: Path, scores: TensorContract) -> int:
    if len(scores.shape) != 2 or scores.shape[0] != 1 or scores.shape[1] < 2:
        raise ModelError(
            f"{path.name} returns a tensor of shape {scores.shape}",
            why="a classifier returns one score per class, of shape (1, classes) with 2 classes or more",
            fix="export the model up to its layer of one score per class",
        )
    return scores.shape[1]


def _dynamic(path: Path, shape: tuple[int, ...]) -> ModelError:
    return ModelError(
        f"{path.name} takes images of no fixed size",
        why=f"its input has the shape {tuple(int(size) for size in shape)}, where -1 is a size to be set",
        fix="export the model with a fixed height and width",
    )
