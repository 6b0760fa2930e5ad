"""What `emb inspect --quantization-error` shows: where in a model int8 loses accuracy, layer by layer.

Takes the float32 and the int8 .tflite of a build, or makes them as a build does, and compares them on images of the
validation split. Trains nothing, and never looks at the test split.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb import data as data_sets
from emb.errors import ExportError, ModelError
from emb.graph import files
from emb.graph.model import ABSENT, Graph, constants
from emb.pipeline.engine import keras_on_tensorflow
from emb.pipeline.json_files import replace_json
from emb.pipeline.model_files import ModelFiles, build_of, names_of_layers, of_build, of_model
from emb.pipeline.output import directory_for
from emb.pipeline.recipes import load_recipe
from emb.pipeline.request import data_request, resolve
from emb.quantize import keep_float, layer_errors, simulate_except
from emb.runtimes import open_runtime
from emb.spec.contract import Pixels
from emb.spec.dataset import Dataset
from emb.store import explained

KEPT = "quantization-error.json"
IMAGES = 256
LAYERS = 8


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
class _Kept:
    """Of every operation, whether it is kept out of int8. carried: also those that hand the layer's values on."""

    alone: Sequence[bool]
    carried: Sequence[bool]


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
        found = _files(source, data=data, data_dir=data_dir, trust_model=trust_model)
        dataset = data_sets.load(found.recipe.data.name, data_request(found.recipe, data_dir=data_dir))
        judge = _judge(dataset, found, count=images)
        graph = files.read(found.float_path)
        names, folded = names_of_layers(graph, found.model)
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
            for error in layer_errors(found.float_path, _int8(found), judge.images, layers=names, pixels=found.pixels)
        ]
        rows.sort(key=_loss, reverse=True)
        exact = frozenset(row.layer for row in rows if row.channel_sqnr_db is None)
        chosen = [row for row in rows if row.layer not in exact][:layers]
        spared = {}
        for row in chosen:
            measured = _Kept(
                alone=[name == row.layer for name in names],
                carried=_carried(graph, names, layer=row.layer, exact=exact),
            )
            spared[row.layer] = _spared(row, measured, found, judge, Path(folder))
        return QuantizationError(
            source=source,
            data=dataset.name,
            images=len(judge.images),
            float_accuracy=judge.accuracy(found.float_path),
            int8_accuracy=judge.accuracy(_int8(found)),
            simulated_accuracy=_simulated(found, [False] * len(names), judge, Path(folder)),
            layers=tuple(spared.get(row.layer, row) for row in rows),
        )


def keep(found: QuantizationError, build: Path) -> Path:
    """Write it into the build's directory, where `emb report` shows it. Raises StoreError."""
    path = build / KEPT
    with explained("write", path):
        replace_json(path, found.to_json())
    return path


def _loss(row: LayerLoss) -> float:
    """The larger, the worse: what a layer adds to its middle channel."""
    return -math.inf if row.channel_sqnr_db is None else -row.channel_sqnr_db


def _finite(value: float) -> float | None:
    """None for no loss at all. Where there was no signal either, as far below it as a float can say."""
    if value == math.inf:
        return None
    return max(value, -999.0)


def _carried(graph: Graph, names: Sequence[str], *, layer: str, exact: frozenset[str]) -> list[bool]:
    """The operations of a layer, and those behind it that only hand its values on (pooling, flattening).

    What they give has the layer's own scale, so that it would be rounded after all.
    """
    fixed = constants(graph)
    spared: set[int] = set()
    kept = []
    for operation, name in zip(graph.operations, names, strict=True):
        read = {index for index in operation.inputs if index != ABSENT} - fixed
        is_kept = name == layer or (name in exact and bool(read) and read <= spared)
        kept.append(is_kept)
        if is_kept:
            spared.update(operation.outputs)
    return kept


def _spared(row: LayerLoss, kept: _Kept, found: ModelFiles, judge: _Judge, folder: Path) -> LayerLoss:
    from emb.export import printing_to_log

    path = folder / "kept.tflite"
    island = None
    # A quantizer may not know how to leave one operation among others; of large models it draws progress bars.
    with suppress(ExportError):
        with printing_to_log():
            keep_float(found.float_path, _int8(found), path, kept=kept.alone)
        island = judge.accuracy(path)
    return replace(row, accuracy_spared=_simulated(found, kept.carried, judge, folder), accuracy_kept_float=island)


def _simulated(found: ModelFiles, kept: Sequence[bool], judge: _Judge, folder: Path) -> float:
    path = folder / "simulated.tflite"
    simulate_except(found.float_path, _int8(found), path, kept=kept)
    return judge.accuracy(path)


def _int8(found: ModelFiles) -> Path:
    if found.int8_path is None:
        raise ValueError("there is no int8 file")
    return found.int8_path


def _judge(dataset: Dataset, found: ModelFiles, *, count: int) -> _Judge:
    chosen = data_sets.sample(dataset.validation, count=count, seed=found.recipe.train.seed, balanced=True)
    return _Judge(images=chosen.images[:], labels=chosen.labels, pixels=found.pixels)


def _files(source: str, *, data: str | None, data_dir: Path | None, trust_model: bool) -> ModelFiles:
    if (build := build_of(source)) is not None:
        return of_build(build, data=data, trust_model=trust_model, with_int8=True)
    recipe = resolve(source, data=data, overrides={"quantize.schemes": "int8", "export.formats": "tflite"})
    if recipe.model.file:
        return of_model(recipe, data_dir=data_dir, trust_model=trust_model, with_int8=True)
    raise ModelError(
        f"{source} has not been built",
        why=f"int8 is compared with a trained float model, and there is no {directory_for(load_recipe(source), None)}",
        fix=f"build it: emb build {source}; or give the directory of a build",
    )
