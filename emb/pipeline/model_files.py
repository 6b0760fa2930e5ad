"""The float32 and int8 .tflite of one trained model, with the Keras layers behind their operations. Trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from emb.errors import ModelError
from emb.graph.model import Graph, constants
from emb.pipeline import build
from emb.pipeline.deliverable import find_all, located
from emb.pipeline.graphs import floats_among_integers
from emb.pipeline.json_files import read_json
from emb.pipeline.output import directory_for
from emb.pipeline.plan import source_format
from emb.pipeline.recipes import load_recipe, recipe_names
from emb.pipeline.request import data_table
from emb.spec.contract import Pixels
from emb.spec.decode import decode, merge
from emb.spec.recipe import Recipe

_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """int8_path: None if it was not asked for.  pixels: of both files.  recipe: with the model's own input shape.

    model: the Keras model's graph; None for what is no Keras model, and for one that is not there any more.
    """

    float_path: Path
    int8_path: Path | None
    pixels: Pixels
    recipe: Recipe
    model: Graph | None


def build_of(source: str) -> Path | None:
    """The build that `source` names: its directory, a file in it, its name in builds/, or the recipe's name.

    None if there is none there.
    """
    path = located(Path(source))
    candidates = [path, path.parent] if path.exists() else []
    if source in recipe_names() or source.endswith(".toml"):
        candidates = [directory_for(load_recipe(source), None)]
    return next((one for one in candidates if (one / "contract.json").is_file()), None)


def of_build(path: Path, *, data: str | None, trust_model: bool, with_int8: bool) -> ModelFiles:
    """What a build holds. data: overrides the data that it was built on. Raises ModelError if a file is missing."""
    by_scheme = {one.scheme: one for one in find_all(path) if one.format == "tflite"}
    missing = [scheme for scheme in ("float32", *(["int8"] if with_int8 else [])) if scheme not in by_scheme]
    if missing:
        raise ModelError(
            f"{path} has no {' and no '.join(missing)} .tflite",
            why="int8 is compared with float32 in TFLite, whose runtimes give out every tensor",
            fix="build the model with it: emb build RECIPE --quantize int8",
        )
    if with_int8 and (floats := floats_among_integers(by_scheme["int8"].graph)):
        raise ModelError(
            f"{by_scheme['int8'].path.name} is not int8 throughout",
            why=f"a repair left {', '.join(operation.name for operation in floats)} in float32",
            fix="build it without --max-drop, and look at that",
        )
    chosen = by_scheme["float32"]
    if not chosen.recipe:
        raise ModelError(f"{path} is damaged", why="it holds no manifest.json", fix="build the model again")
    table = merge(chosen.recipe, data_table(data)) if data is not None else chosen.recipe
    recipe = decode(Recipe, table, source=str(path / "manifest.json"))
    shape = tuple(chosen.graph.tensors[chosen.graph.inputs[0]].shape or ())[1:]
    recipe = replace(recipe, input=replace(recipe.input, shape=shape))
    return ModelFiles(
        float_path=chosen.path,
        int8_path=by_scheme["int8"].path if with_int8 else None,
        pixels=chosen.pixels,
        recipe=recipe,
        model=_model_graph(recipe, classes=len(chosen.labels), trust_model=trust_model),
    )


def of_model(recipe: Recipe, *, data_dir: Path | None, trust_model: bool, with_int8: bool) -> ModelFiles:
    """What a build would make of a model that lies in a file, from the store or made now. Raises EmbError."""
    source = recipe.model.file
    if source_format(source) == "onnx":
        raise ModelError(
            f"the layers of {source} cannot be looked into",
            why="ONNX Runtime gives out a model's output alone",
            fix="give the Keras model, or a float .tflite of it",
        )
    engine = build.engine_for(recipe, backend=None, devices=None)
    ready = build.prepare(recipe, engine, data_dir=data_dir, trust_model=trust_model, listener=None)
    wanted = ("data", "model", "float32.tflite", *(("calibration", "int8.tflite") if with_int8 else ()))
    stages = tuple(stage for stage in ready.plan.stages if stage.name in wanted)
    done, failures = build.run(replace(ready, plan=replace(ready.plan, stages=stages)))
    for failure in failures.values():
        raise failure
    return ModelFiles(
        float_path=done["float32.tflite"].path("model.tflite"),
        int8_path=done["int8.tflite"].path("model.tflite") if with_int8 else None,
        pixels=Pixels(**read_json(done["float32.tflite"].path("pixels.json"))),
        recipe=ready.recipe,
        model=_graph_of_file(Path(source), trust_model=trust_model),
    )


def names_of_layers(graph: Graph, model: Graph | None) -> tuple[list[str], Mapping[str, tuple[str, ...]]]:
    """The layer of every operation of a .tflite, and what is folded into each layer.

    An operation that belongs to no Keras layer keeps its own name; "" for one that computes constants.
    """
    from emb.graph.keras_names import layer_names

    found = layer_names(graph, model) if model is not None else (None,) * len(graph.operations)
    fixed = constants(graph)
    names: list[str] = []
    folded: dict[str, tuple[str, ...]] = {}
    for operation, layer in zip(graph.operations, found, strict=True):
        if fixed.issuperset(operation.outputs):
            names.append("")
            continue
        names.append(layer.name if layer else operation.name)
        if layer:
            folded[layer.name] = tuple(dict.fromkeys((*folded.get(layer.name, ()), *layer.folded)))
    return names, folded


def _model_graph(recipe: Recipe, *, classes: int, trust_model: bool) -> Graph | None:
    from emb.pipeline.zoo_graph import graph_of

    if recipe.model.file:
        return _graph_of_file(Path(recipe.model.file), trust_model=trust_model)
    height, width, channels = recipe.input.shape
    arguments = recipe.model.arguments
    return graph_of(recipe.model.builder, input_shape=(height, width, channels), classes=classes, arguments=arguments)


def _graph_of_file(path: Path, *, trust_model: bool) -> Graph | None:
    if path.suffix.lower() not in _KERAS_SUFFIXES or not path.is_file():
        return None
    from emb.export import printing_to_log
    from emb.export.source import load_keras
    from emb.graph import keras as keras_graph

    with printing_to_log():
        return keras_graph.read(load_keras(path, trust=trust_model))
