"""A model on its way to int8: plain Keras weights and the ranges that were chosen for them, as files of a stage.

model.keras     the weights, in the plain form or as they were where nothing had to change
ranges.json     the ranges, by group of tensors and by what a converter recognizes a tensor by; empty if none is chosen;
                and the layers that compute in float32
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import ModelError
from emb.pipeline.json_files import read_json, write_json
from emb.pipeline.pixels import PIXELS
from emb.pipeline.stage import Work
from emb.store import Artifact

if TYPE_CHECKING:
    import keras

    from emb.quantize import KnownRange

RANGES = "ranges.json"
# What a repair tried; beside the two.
REPAIR_FILE = "repair.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """model: in the plain form.  ranges: of every group of tensors, see emb.quantize.remedies.simulation.

    floats: the same layers before biases and weights were fitted to the rounding; what they compute is the aim.
    per_tensor: whether each tensor got the method that suits it, and not all of them the recipe's.
    float_layers: that compute in float32 in the file.
    """

    model: keras.Model
    floats: keras.Model
    ranges: dict[str, Any]
    per_tensor: bool = False
    float_layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatOperation:
    """layer: that it belongs to.  operation: its name.  output: the first tensor that it writes."""

    layer: str
    operation: str
    output: str


def open_plain(work: Work, *, source: str, model: str) -> keras.Model:
    """The plain form of the model that a stage left. Raises ModelError for anything but a Keras model."""
    from emb.export.plain import plain

    return plain(open_keras(work, source=source, model=model))


def open_keras(work: Work, *, source: str, model: str) -> keras.Model:
    """The model that a stage left, as it is. Raises ModelError for anything but a Keras model."""
    from emb.export.source import open_source

    opened = open_source(work.done[source].directory / model, trust=work.context.trust_model)
    if opened.model is None:
        raise ModelError(
            f"the weights of {work.context.recipe.model.file} cannot be changed",
            why=f"emb trains and repairs Keras models; this is {opened.kind}",
            fix="give the .keras or .h5 file, or choose int8 and leave --max-drop out",
        )
    return opened.model


def calibration_of(work: Work) -> NDArray[np.float32]:
    """The calibration images as the model takes them."""
    pixels = PIXELS[work.context.recipe.input.pixels]
    images = np.load(work.file("calibration", "calibration.npy")).astype(np.float32)
    real: NDArray[np.float32] = images * np.float32(pixels.scale) + np.float32(pixels.offset)
    return real


def write_candidate(folder: Path, candidate: Candidate, images: NDArray[np.float32]) -> None:
    """Both files. images: for calibration, as the model takes them."""
    from emb.quantize.remedies.simulation import known_ranges

    candidate.model.save(folder / "model.keras")
    known = known_ranges(candidate.model, images, candidate.ranges)
    groups = {name: asdict(one) for name, one in candidate.ranges.items()}
    write_json(
        folder / RANGES, {"known": [one.to_json() for one in known], "groups": groups, "float": candidate.float_layers}
    )


def write_unchanged(folder: Path, work: Work, *, source: str, model: str) -> None:
    """Both files of a model that stays as the stage `source` left it."""
    if model.endswith(".keras"):
        shutil.copyfile(work.done[source].path(model), folder / "model.keras")
    else:
        open_keras(work, source=source, model=model).save(folder / "model.keras")
    if RANGES in work.done[source].files:
        shutil.copyfile(work.file(source, RANGES), folder / RANGES)
    else:
        write_json(folder / RANGES, {"known": [], "groups": {}, "float": []})


def read_known(artifact: Artifact) -> list[KnownRange]:
    """What a converter gets."""
    return known_in(artifact.directory)


def known_in(folder: Path) -> list[KnownRange]:
    """The same of a folder that `write_candidate` filled."""
    from emb.quantize import KnownRange

    return [KnownRange.from_json(table) for table in read_json(folder / RANGES)["known"]]


def float_layers_of(artifact: Artifact) -> tuple[str, ...]:
    """The layers that the stage left in float32."""
    return float_layers_in(artifact.directory) if RANGES in artifact.files else ()


def float_layers_in(folder: Path) -> tuple[str, ...]:
    """The same of a folder that `write_candidate` filled."""
    return tuple(read_json(folder / RANGES)["float"])


def float_operations(folder: Path, path: Path, *, trust: bool) -> list[FloatOperation]:
    """What of a .tflite or .onnx file computes in float32, or is to, in the order of the file.

    folder: with the model.keras that the file was made of, and its ranges.json.  trust: the code in the model.
    The operation that writes the file's output is never among them: what a model returns is integers.
    """
    from emb.export.source import load_keras
    from emb.graph import files
    from emb.graph import keras as keras_graph
    from emb.graph.keras_names import layer_names
    from emb.graph.vocabulary import REPRESENTATIONS

    layers = frozenset(float_layers_in(folder))
    if not layers:
        return []
    graph = files.read(path)
    model = keras_graph.read(load_keras(folder / "model.keras", trust=trust))
    found = []
    for operation, names in zip(graph.operations, layer_names(graph, model), strict=True):
        output = operation.outputs[0]
        computes = operation.kind not in REPRESENTATIONS and graph.tensors[output].is_float
        if computes and output not in graph.outputs and names is not None and names.name in layers:
            name = graph.tensors[output].name
            found.append(FloatOperation(layer=names.name, operation=operation.name, output=name))
    return found


def groups_of(artifact: Artifact) -> dict[str, Any]:
    """The ranges by group that the stage chose; empty if it chose none."""
    from emb.quantize import Range

    if RANGES not in artifact.files:
        return {}
    return {name: Range(**table) for name, table in read_json(artifact.path(RANGES))["groups"].items()}
