"""Pictures of a trained model: the kernels of its first convolution, its feature maps for an image. Trains nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import ModelError, SpecError, StoreError
from emb.graph.kernels import first_kernels, require_convolution
from emb.graph.model import Graph
from emb.graph.summary import CONVOLVING
from emb.pipeline.deliverable import Deliverable, find_all
from emb.report.images import kernel_grid, map_grid, write_png

Maps = NDArray[np.float32]

_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_FILE_SUFFIXES = (".tflite", ".onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A file that was written. layer: whose.  shape: (height, width, channels, filters) of kernels, (height, width,
    channels) of maps.  least, largest: the values that the ends of the scale stand for.
    """

    file: str
    layer: str
    shape: tuple[int, ...]
    least: float
    largest: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def draw_filters(source: str, output: Path, *, trust_model: bool = False) -> Picture:
    """Write the kernels of the first convolution to `output`, a PNG file.

    source: a .keras, .h5, .tflite or .onnx file, or a build's directory, whose float32 file is taken if it has one.
    Raises ModelError if it is none of these or has no convolution, SpecError if `output` has another ending,
    StoreError if the file cannot be written.
    """
    if output.suffix.lower() != ".png":
        raise SpecError(
            f"--filters writes a PNG file, and {output} has another ending",
            fix=f"name it {output.with_suffix('.png') if output.name else 'filters.png'}",
        )
    path = _trained(source)
    if path.suffix.lower() in _KERAS_SUFFIXES:
        name, kernels = _keras_kernels(path, trust=trust_model)
    else:
        deliverable = _float_file(path)
        name, kernels = first_kernels(deliverable.path, deliverable.graph)
    write_png(kernel_grid(kernels), output)
    return _picture(output, name, kernels)


def draw_feature_maps(source: str, image: Path, output: Path, *, trust_model: bool = False) -> tuple[Picture, ...]:
    """Write the maps that each convolution makes of an image to `output`, a directory that is there: 01-conv1.png, ...

    source: a .keras, .h5 or .tflite file, or a build's directory. Raises ModelError if it is none of these or has no
    convolution, DataError if the image cannot be read, StoreError if a file cannot be written.
    """
    path = _trained(source)
    if not output.is_dir():
        raise StoreError(
            f"cannot write feature maps to {output}",
            why="it is no directory",
            fix="make it, or choose another one with --output",
        )
    if path.suffix.lower() in _KERAS_SUFFIXES:
        named = _keras_maps(path, image, trust=trust_model)
    else:
        named = _tflite_maps(_tflite_file(path), image)
    pictures = []
    for number, (name, maps) in enumerate(named, start=1):
        file = output / f"{number:02}-{_file_name(name)}.png"
        write_png(map_grid(maps), file)
        pictures.append(_picture(file, name, maps))
    return tuple(pictures)


def _trained(source: str) -> Path:
    path = Path(source)
    if path.is_dir() or path.suffix.lower() in (*_KERAS_SUFFIXES, *_FILE_SUFFIXES):
        return path
    raise ModelError(
        f"{source} holds no trained weights",
        why="kernels and feature maps are those of a model after its training; a recipe is what it begins with",
        fix=f"build it and give the build's directory: emb build {source}",
    )


def _float_file(path: Path) -> Deliverable:
    """The file itself, or the float32 one of a build's directory, or its first one."""
    found = find_all(path)
    return next((one for one in found if one.scheme == "float32"), found[0])


def _tflite_file(path: Path) -> Deliverable:
    found = [one for one in find_all(path) if one.format == "tflite"]
    if not found:
        raise ModelError(
            f"the feature maps of {path} cannot be read",
            why="ONNX Runtime gives out a model's output alone",
            fix="give the .tflite or .keras file of the same model",
        )
    return next((one for one in found if one.scheme == "float32"), found[0])


def _keras_kernels(path: Path, *, trust: bool) -> tuple[str, Maps]:
    model, graph = _keras(path, trust=trust)
    operation = require_convolution(graph)
    layer = next(layer for layer in _layers(model) if layer.name == operation.name.removesuffix("/depthwise"))
    kernels = np.asarray(layer.get_weights()[0], dtype=np.float32)
    if kernels.ndim == 3:  # one spatial axis
        kernels = kernels[np.newaxis]
    if operation.kind == "DEPTHWISE_CONV_2D":  # (height, width, channels, multiplier)
        kernels = kernels.reshape(*kernels.shape[:2], 1, -1)
    elif operation.kind == "TRANSPOSE_CONV":  # (height, width, filters, channels)
        kernels = kernels.swapaxes(2, 3)
    return operation.name, kernels


def _keras(path: Path, *, trust: bool) -> tuple[Any, Graph]:
    from emb.export.source import load_keras
    from emb.graph import keras as keras_graph

    model = load_keras(path, trust=trust)
    return model, keras_graph.read(model)


def _layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)


def _keras_maps(path: Path, image: Path, *, trust: bool) -> list[tuple[str, Maps]]:
    """Of the convolutions that are the model's own layers, not those of a model inside of it."""
    model, graph = _keras(path, trust=trust)
    require_convolution(graph)
    names = {operation.name for operation in graph.operations if operation.kind in CONVOLVING}
    layers = [layer for layer in model.layers if layer.name in names]
    if not layers or len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise ModelError(
            f"the feature maps of {path} cannot be read",
            why="it does not take one image, or has its convolutions in a model inside of the model",
            fix="export it with `emb build` and give the .tflite file",
        )
    import keras

    from emb.data import read_image

    height, width, channels = model.inputs[0].shape[1:]
    pixels = read_image(image, shape=(height, width, channels))
    results = keras.Model(model.inputs[0], [layer.output for layer in layers])(
        pixels[np.newaxis].astype(np.float32), training=False
    )
    values = results if isinstance(results, list | tuple) else [results]
    return [
        (layer.name, np.asarray(keras.ops.convert_to_numpy(value), dtype=np.float32)[0])
        for layer, value in zip(layers, values, strict=True)
    ]


def _tflite_maps(deliverable: Deliverable, image: Path) -> list[tuple[str, Maps]]:
    """What the file itself computes, with LiteRT's own kernels; integers are taken back to what they stand for."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from emb.data import read_image
    from emb.pipeline.classify import image_shape
    from emb.pipeline.graphs import border
    from emb.runtimes import to_input

    graph = deliverable.graph
    require_convolution(graph)
    tensor, _ = border(deliverable.path)
    picture = read_image(image, shape=image_shape(tensor))
    interpreter = Interpreter(
        model_path=str(deliverable.path),
        experimental_preserve_all_tensors=True,
        # A delegate would keep what is between its operations to itself.
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(graph.inputs[0], to_input(picture[np.newaxis], tensor, deliverable.pixels))
    interpreter.invoke()
    found = []
    for operation in graph.operations:
        if operation.kind in CONVOLVING:
            index = operation.outputs[0]
            values = interpreter.get_tensor(index)[0].astype(np.float32)
            if quantization := graph.tensors[index].quantization:
                values = (values - quantization.zero_points[0]) * np.float32(quantization.scales[0])
            found.append((operation.name, values))
    return found


def _short(name: str) -> str:
    """The end of a converter's first name, which tells layers apart: of a/b/c;d/e/f it is b/c."""
    return "/".join(name.split(";")[0].split("/")[-2:])


def _file_name(name: str) -> str:
    """A layer's name in letters that every file system takes."""
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in _short(name))
    return plain.strip("-") or "layer"


def _picture(file: Path, layer: str, values: Maps) -> Picture:
    return Picture(
        file=str(file),
        layer=_short(layer),
        shape=tuple(values.shape),
        least=float(np.nanmin(values)),
        largest=float(np.nanmax(values)),
    )
