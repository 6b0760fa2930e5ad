"""What `emb inspect --quantization-error` shows: where in a model int8 loses accuracy, layer by layer.

Takes the float32 and the int8 .tflite of a build, or makes them as a build does, and compares them on images of the
validation split. Trains nothing, and never looks at the test split.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb import data as data_sets
from emb.errors import ExportError, ModelError
from emb.graph import files
from emb.graph.model import Graph, constants
from emb.pipeline.deliverable import find_all, located
from emb.pipeline.engine import keras_on_tensorflow
from emb.pipeline.request import data_request, data_table, resolve
from emb.quantize import keep_float, layer_errors, simulate_except
from emb.runtimes import open_runtime
from emb.spec.contract import Pixels
from emb.spec.dataset import Dataset
from emb.spec.decode import decode, merge
from emb.spec.recipe import Recipe

IMAGES = 256
LAYERS = 8
_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLoss:
    """One layer. folded: layers that are part of it.  kinds: its operations.

    sqnr_db, cosine, clipped_share: of its output when the whole model is int8.  own_sqnr_db: of what it adds itself;
    channel_sqnr_db: the same for its middle channel. SQNR is None where nothing is lost.
    accuracy_spared: with its weights and output left unrounded, simulated.  accuracy_kept_float: of the int8 model in
    which its operations compute in float32, as a board could run it.  Both None where they were not asked for.
    """

    layer: str
    folded: tuple[str, ...]
    kinds: tuple[str, ...]
    sqnr_db: float | None
    cosine: float
    clipped_share: float
    own_sqnr_db: float | None
    channel_sqnr_db: float | None
    accuracy_spared: float | None = None
    accuracy_kept_float: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationError:
    """layers: the worst first.  images: how many validation images of `data` were compared.

    simulated_accuracy: of the int8 model as it is simulated to spare single layers.
    """

    source: str
    data: str
    images: int
    float_accuracy: float
    int8_accuracy: float
    simulated_accuracy: float
    layers: tuple[LayerLoss, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """model: the Keras model's graph, None if it is not at hand."""

    float_path: Path
    int8_path: Path
    pixels: Pixels
    recipe: Recipe
    model: Graph | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """Runs files over the same labelled images."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    pixels: Pixels

    def accuracy(self, path: Path) -> float:
        with open_runtime("litert", model=path) as process:
            scores = process.scores(self.images, pixels=self.pixels)
        return float(np.mean(scores.argmax(axis=1) == self.labels))


def quantization_error(
    source: str,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    images: int = IMAGES,
    layers: int | None = LAYERS,
    trust_model: bool = False,
) -> QuantizationError:
    """Compare the int8 .tflite of a model with its float32 one.

    source: a build (its directory, its name in builds/, or the recipe that was built), or a model of one's own
    (.keras, .h5, a SavedModel, a float .tflite), which needs `data`.
    images: of the validation split, as many as there are at most.  layers: how many of the worst are spared in turn;
    None for all. Raises EmbError for what cannot be compared.
    """
    with keras_on_tensorflow(), tempfile.TemporaryDirectory(prefix="emb-") as folder:
        found = _files(source, Path(folder), data=data, data_dir=data_dir, trust_model=trust_model)
        dataset = data_sets.load(found.recipe.data.name, data_request(found.recipe, data_dir=data_dir))
        judge = _judge(dataset, found, count=images)
        graph = files.read(found.float_path)
        names, folded = _names(graph, found.model)
        rows = [
            LayerLoss(
                layer=error.layer,
                folded=folded.get(error.layer, ()),
                kinds=error.kinds,
                sqnr_db=_finite(error.accumulated.sqnr_db),
                cosine=error.accumulated.cosine,
                clipped_share=error.accumulated.clipped_share,
                own_sqnr_db=_finite(error.own.sqnr_db),
                channel_sqnr_db=_finite(error.own.channel_sqnr_db),
            )
            for error in layer_errors(
                found.float_path, found.int8_path, judge.images, layers=names, pixels=found.pixels
            )
        ]
        rows.sort(key=_loss, reverse=True)
        chosen = [row for row in rows if row.channel_sqnr_db is not None][:layers]
        spared = {row.layer: _spared(row, names, found, judge, Path(folder)) for row in chosen}
        return QuantizationError(
            source=source,
            data=dataset.name,
            images=len(judge.images),
            float_accuracy=judge.accuracy(found.float_path),
            int8_accuracy=judge.accuracy(found.int8_path),
            simulated_accuracy=_simulated(found, [False] * len(names), judge, Path(folder)),
            layers=tuple(spared.get(row.layer, row) for row in rows),
        )


def _loss(row: LayerLoss) -> float:
    """The larger, the worse: what a layer adds to its middle channel."""
    return -math.inf if row.channel_sqnr_db is None else -row.channel_sqnr_db


def _finite(value: float) -> float | None:
    """None for no loss at all. Where there was no signal either, as far below it as a float can say."""
    if value == math.inf:
        return None
    return max(value, -999.0)


def _spared(row: LayerLoss, names: Sequence[str], found: _Files, judge: _Judge, folder: Path) -> LayerLoss:
    kept = [name == row.layer for name in names]
    path = folder / "kept.tflite"
    island = None
    # A quantizer may not know how to leave one operation among others.
    with suppress(ExportError):
        keep_float(found.float_path, found.int8_path, path, kept=kept)
        island = judge.accuracy(path)
    return replace(row, accuracy_spared=_simulated(found, kept, judge, folder), accuracy_kept_float=island)


def _simulated(found: _Files, kept: Sequence[bool], judge: _Judge, folder: Path) -> float:
    path = folder / "simulated.tflite"
    simulate_except(found.float_path, found.int8_path, path, kept=kept)
    return judge.accuracy(path)


def _names(graph: Graph, model: Graph | None) -> tuple[list[str], Mapping[str, tuple[str, ...]]]:
    """The layer of every operation, which keeps its own name where it has none; and what is folded into each layer."""
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
            others = (*folded.get(layer.name, ()), *layer.folded)
            folded[layer.name] = tuple(dict.fromkeys(others))
    return names, folded


def _judge(dataset: Dataset, found: _Files, *, count: int) -> _Judge:
    from emb.data import validation_images

    images, labels = validation_images(dataset, count=count, seed=found.recipe.train.seed)
    return _Judge(images=images, labels=labels, pixels=found.pixels)


def _files(source: str, folder: Path, *, data: str | None, data_dir: Path | None, trust_model: bool) -> _Files:
    path = located(Path(source))
    if path.is_file() and (path.parent / "contract.json").is_file():
        path = path.parent
    if not (path.is_dir() and (path / "contract.json").is_file()) and not _is_model(path):
        path = _built(source)
    if path.is_dir() and (path / "contract.json").is_file():
        return _of_build(path, data=data, trust_model=trust_model)
    return _made(source, folder, data=data, data_dir=data_dir, trust_model=trust_model)


def _is_model(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in (*_KERAS_SUFFIXES, ".tflite", ".onnx")


def _built(source: str) -> Path:
    """Where the recipe of that name was built. Raises SpecError for an unknown name, ModelError if it was not."""
    from emb.pipeline.output import directory_for
    from emb.pipeline.recipes import load_recipe

    directory = directory_for(load_recipe(source), None)
    if not directory.is_dir():
        raise ModelError(
            f"{source} has not been built",
            why=f"int8 is compared with a trained float model, and there is no {directory}",
            fix=f"build it: emb build {source}; or give the directory of a build",
        )
    return directory


def _of_build(path: Path, *, data: str | None, trust_model: bool) -> _Files:
    by_scheme = {one.scheme: one for one in find_all(path) if one.format == "tflite"}
    missing = [scheme for scheme in ("float32", "int8") if scheme not in by_scheme]
    if missing:
        raise ModelError(
            f"{path} has no {' and no '.join(missing)} .tflite",
            why="int8 is compared with the float32 model, in TFLite, whose runtimes give out every tensor",
            fix="build the model with them: emb build RECIPE --quantize int8",
        )
    chosen = by_scheme["int8"]
    table = dict(chosen.recipe)
    if not table:
        raise ModelError(f"{path} is damaged", why="it holds no manifest.json", fix="build the model again")
    if data is not None:
        table = merge(table, data_table(data))
    recipe = decode(Recipe, table, source=str(path / "manifest.json"))
    shape = tuple(chosen.graph.tensors[chosen.graph.inputs[0]].shape or ())[1:]
    recipe = replace(recipe, input=replace(recipe.input, shape=shape))
    return _Files(
        float_path=by_scheme["float32"].path,
        int8_path=chosen.path,
        pixels=chosen.pixels,
        recipe=recipe,
        model=_model_graph(recipe, shape=shape, classes=len(chosen.labels), trust_model=trust_model),
    )


def _model_graph(recipe: Recipe, *, shape: tuple[int, ...], classes: int, trust_model: bool) -> Graph | None:
    """The Keras model's; None for what is no Keras model, and for somebody's own that is not there any more."""
    from emb.pipeline.zoo_graph import graph_of

    if not recipe.model.file:
        height, width, channels = shape
        return graph_of(
            recipe.model.builder,
            input_shape=(height, width, channels),
            classes=classes,
            arguments=recipe.model.arguments,
        )
    return _graph_of_file(Path(recipe.model.file), trust_model=trust_model)


def _graph_of_file(path: Path, *, trust_model: bool) -> Graph | None:
    if path.suffix.lower() not in _KERAS_SUFFIXES or not path.is_file():
        return None
    from emb.export import printing_to_log
    from emb.export.source import load_keras
    from emb.graph import keras as keras_graph

    with printing_to_log():
        return keras_graph.read(load_keras(path, trust=trust_model))


def _made(source: str, folder: Path, *, data: str | None, data_dir: Path | None, trust_model: bool) -> _Files:
    """The float32 and the int8 file as a build would make them, from the store or made now."""
    from emb.pipeline import build
    from emb.pipeline.json_files import read_json
    from emb.pipeline.plan import source_format

    if source_format(source) == "onnx":
        raise ModelError(
            f"the layers of {source} cannot be compared",
            why="ONNX Runtime gives out a model's output alone",
            fix="give the Keras model, or a float .tflite of it",
        )
    overrides = {"quantize.schemes": "int8", "export.formats": "tflite"}
    recipe = resolve(source, data=data, overrides=overrides)
    ready = build.prepare(
        recipe, build.engine_for(recipe, backend=None, devices=None), data_dir=data_dir, trust_model=trust_model,
        listener=None,
    )  # fmt: skip
    wanted = ("data", "calibration", "model", "float32.tflite", "int8.tflite")
    stages = tuple(stage for stage in ready.plan.stages if stage.name in wanted)
    done, failures = build.run(replace(ready, plan=replace(ready.plan, stages=stages)))
    if failures:
        raise next(iter(failures.values()))
    return _Files(
        float_path=done["float32.tflite"].path("model.tflite"),
        int8_path=done["int8.tflite"].path("model.tflite"),
        pixels=Pixels(**read_json(done["float32.tflite"].path("pixels.json"))),
        recipe=ready.recipe,
        model=_graph_of_file(Path(recipe.model.file), trust_model=trust_model),
    )
