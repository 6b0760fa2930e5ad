"""What `emb inspect` shows: the graph of a model file or of a recipe, with its cost. Trains and runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.errors import ModelError, SpecError
from emb.graph import files
from emb.graph.cost import GraphCost, OperationCost, cost
from emb.graph.model import ABSENT, Graph, Operation
from emb.graph.receptive import covered_share, image_grid
from emb.pipeline.graphs import floats_among_integers

if TYPE_CHECKING:
    from emb.spec.recipe import Recipe

_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """source: the file or recipe.  file_bytes: size of the file; None for a recipe.

    stem: the sentence that says which beginning a recipe's network got for its images; "" if there is but one.
    in_floats: the operations that compute in float32 in a .tflite of integers.
    """

    source: str
    file_bytes: int | None
    graph: Graph
    cost: GraphCost
    stem: str = ""
    in_floats: tuple[str, ...] = ()


def inspect(
    source: str, *, data_dir: Path | None = None, trust_model: bool = False, classes: int | None = None
) -> Inspection:
    """Inspect a .tflite, .onnx, .keras or .h5 file, or the model of a recipe (a name or a .toml file).

    data_dir: searched for the recipe's data set, whose shape and classes the model follows.
    classes: of a recipe's model, which then takes the recipe's own input.shape; its data set need not be there.
    trust_model: load a Keras file that carries Python code. Tensorflow and keras are imported only for Keras
    files and recipes. Raises ModelError, SpecError or DataError.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if classes is not None and suffix in (*files.SUFFIXES, *_KERAS_SUFFIXES):
        raise _classes_of_a_file(source)
    if suffix in files.SUFFIXES:
        return _inspection(source, files.read(path), path)
    if suffix in _KERAS_SUFFIXES:
        from emb.export.source import load_keras

        return _inspection(source, _keras_graph(load_keras(path, trust=trust_model)), path)
    if path.is_dir():
        raise ModelError(
            f"{path} is a directory",
            why="inspect reads single files; a SavedModel does not say how its layers are connected",
            fix="give a .tflite, .onnx, .keras or .h5 file, or a recipe",
        )
    return _inspect_recipe(source, data_dir=data_dir, trust_model=trust_model, classes=classes)


def document(inspection: Inspection) -> dict[str, Any]:
    """The inspection as one JSON document; null stands for what is unknown."""
    graph, total = inspection.graph, inspection.cost
    return {
        "source": inspection.source,
        "format": graph.format,
        "layout": graph.layout,
        "file_bytes": inspection.file_bytes,
        "inputs": [_tensor(graph, index) for index in graph.inputs],
        "outputs": [_tensor(graph, index) for index in graph.outputs],
        "stem": inspection.stem or None,
        "in_float32": list(inspection.in_floats),
        "operations": [
            _operation(graph, operation, row) for operation, row in zip(graph.operations, total.operations, strict=True)
        ],
        "totals": {
            "operations": len(graph.operations),
            "parameters": total.parameters,
            "macs": total.macs,
            "macs_unknown_for": list(total.uncounted),
            "activation_bytes": total.activation_bytes,
            "constant_bytes": total.constant_bytes,
            "peak_live_bytes": total.peak_live_bytes,
        },
    }


def _inspection(source: str, graph: Graph, path: Path | None, *, stem: str = "") -> Inspection:
    file_bytes = path.stat().st_size if path is not None else None
    floats = tuple(operation.name for operation in floats_among_integers(graph))
    return Inspection(source=source, file_bytes=file_bytes, graph=graph, cost=cost(graph), stem=stem, in_floats=floats)


def _inspect_recipe(name: str, *, data_dir: Path | None, trust_model: bool, classes: int | None) -> Inspection:
    from emb.pipeline.recipes import load_recipe
    from emb.pipeline.zoo_graph import graph_of, stem_of

    recipe = load_recipe(name)
    if recipe.model.file:
        if classes is not None:
            raise _classes_of_a_file(recipe.model.file)
        inner = inspect(recipe.model.file, data_dir=data_dir, trust_model=trust_model)
        return _inspection(name, inner.graph, Path(recipe.model.file))
    shape, count = images_of(recipe, data_dir=data_dir, classes=classes)
    builder, arguments = recipe.model.builder, recipe.model.arguments
    graph = graph_of(builder, input_shape=shape, classes=count, arguments=arguments)
    return _inspection(name, graph, None, stem=stem_of(builder, input_shape=shape, arguments=arguments))


def _classes_of_a_file(source: str) -> SpecError:
    return SpecError(
        f"--classes does not apply to {source}",
        why="a model that lies in a file has its classes already",
        fix="leave --classes out, or give a recipe whose model has a builder",
    )


def images_of(recipe: Recipe, *, data_dir: Path | None, classes: int | None) -> tuple[tuple[int, int, int], int]:
    """(height, width, channels) and classes of a recipe's model: its data set's, or those that were told."""
    from emb import data as data_sets
    from emb.pipeline.request import data_request

    if classes is None:
        dataset = data_sets.load(recipe.data.name, data_request(recipe, data_dir=data_dir))
        return dataset.shape, len(dataset.labels)
    if not recipe.input.shape:
        raise SpecError(
            f"the recipe {recipe.name!r} has no input.shape",
            why="with --classes its data set is not looked at, which would give the shape",
            fix="leave --classes out, or set input.shape in the recipe",
        )
    height, width, channels = recipe.input.shape
    return (height, width, channels), classes


def _keras_graph(model: Any) -> Graph:
    from emb.graph import keras as keras_graph

    return keras_graph.read(model)


def _tensor(graph: Graph, index: int) -> dict[str, Any]:
    tensor = graph.tensors[index]
    quantization = tensor.quantization
    return {
        "name": tensor.name,
        "shape": None if tensor.shape is None else list(tensor.shape),
        "dtype": tensor.dtype,
        "scale": quantization.scales[0] if quantization and quantization.axis is None else None,
        "zero_point": quantization.zero_points[0] if quantization and quantization.axis is None else None,
    }


def _operation(graph: Graph, operation: Operation, row: OperationCost) -> dict[str, Any]:
    """One operation with its cost; receptive field and jump are (height, width) in input pixels.

    image_share: of the image, covered by the field of a position in its middle, in [0, 1].
    """
    activations = [i for i in operation.inputs if i != ABSENT and not graph.tensors[i].constant]
    image = image_grid(graph)
    return {
        "kind": operation.kind,
        "name": operation.name,
        "inputs": [_tensor(graph, index) for index in activations],
        "outputs": [_tensor(graph, index) for index in operation.outputs],
        "parameters": row.parameters,
        "macs": row.macs,
        "activation_bytes": row.activation_bytes,
        "live_bytes": row.live_bytes,
        "receptive_field": None if row.field is None else [_number(v) for v in row.field.pixels],
        "jump": None if row.field is None else [_number(v) for v in row.field.jump],
        "image_share": None if row.field is None or image is None else round(covered_share(row.field, image), 6),
    }


def _number(value: Fraction) -> int | float:
    return value.numerator if value.denominator == 1 else float(value)
