"""What of a build goes into a bundle: one int8 model that fits the target, and the answers that it must give there.

Every file is held against the build's manifest before it is used. Writes nothing but copies.
"""

from __future__ import annotations

import math
import platform
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from emb.errors import ModelError, SpecError
from emb.graph.sums import all_alike
from emb.pipeline import check
from emb.pipeline.classify import image_shape
from emb.pipeline.deliverable import Deliverable, find
from emb.pipeline.json_files import read_json
from emb.registry import nearest
from emb.runtimes import RUNTIMES
from emb.spec.contract import Contract
from emb.spec.decode import decode
from emb.spec.target import Target
from emb.store import MANIFEST as BUILD_MANIFEST
from emb.store import explained, sha256_of_file

# Measured: the same bits on x86-64 and on arm64, but for some sums and products in ONNX Runtime (emb.graph.sums). The
# kernels that the TFLite runtimes take without a delegate differ, and so does all that tflite-runtime does by default;
# floats differ everywhere.
SAME_BITS_EVERYWHERE = (
    ("litert", "default"),
    ("litert", "reference"),
    ("tflite-runtime", "reference"),
    ("onnxruntime", "default"),
)
_SCHEMES = ("int8", "int8-uint8", "int8-qat")
_COMPILED_SUFFIXES = {"edge-tpu": "_edgetpu.tflite", "ethos-u": "_vela.tflite"}


def chosen_model(build: Path, target: Target, file: str | None) -> Deliverable:
    """The model to bundle. Raises ModelError if the build has none that is fit."""
    contract = build / "contract.json"
    if not (contract.is_file() and (build / BUILD_MANIFEST).is_file()):
        raise ModelError(
            f"{build} is no build",
            why=f"it holds no {'contract.json' if not contract.is_file() else BUILD_MANIFEST}",
            fix="give a directory that emb build has made",
        )
    _require_untouched(contract, _digests_of(build).get("contract.json", ""))
    models = _read_document(contract)["models"]
    names = [model["file"] for model in models]
    if file is not None:
        if file not in names:
            raise ModelError(f"{build} has no model {file!r}", fix=nearest(file, names))
        models = [model for model in models if model["file"] == file]
    formats = {read for runtime in target.runtimes for read in RUNTIMES.get(runtime).FORMATS}
    able = [model for model in models if model["scheme"] in _SCHEMES and model["format"] in formats]
    fit = [model["file"] for model in able if not model.get("float_layers")]
    if able and not fit:
        raise _answers_in_floats(able[0], target)
    if not fit:
        raise ModelError(
            f"{build} has no int8 model for {target.name}"
            if file is None
            else f"{file} cannot be bundled for {target.name}",
            why=f"{target.name} runs int8 files of the formats {', '.join(sorted(formats))}; there is "
            + ", ".join(f"{model['file']} ({model['scheme']})" for model in models),
            fix="build one: emb build RECIPE --quantize int8",
        )
    return find(build / fit[0])


def _answers_in_floats(model: Mapping[str, Any], target: Target) -> ModelError:
    return ModelError(
        f"{model['file']} cannot be bundled for {target.name}",
        why=f"{', '.join(model['float_layers'])} compute in float32, which is not the same bits everywhere",
        fix="build it without: --no-keep-float; it may lose more, or need more with --max-drop",
    )


def _require_untouched(path: Path, digest: str, *, copy: Path | None = None) -> None:
    """Raises ModelError if a file of a build, or its copy, has another sha256 than its manifest lists."""
    if sha256_of_file(copy or path) != digest:
        raise ModelError(
            f"{path} is not what was built",
            why="its sha256 differs from the one in the build's manifest",
            fix="build the model again",
        )


def require_fit(chosen: Deliverable, target: Target) -> None:
    """Raises ModelError if the model breaks the target's contract, as `emb check` says it."""
    path, model = chosen.path, chosen.recipe.get("model", {})
    check.require_fit(check.check_model(path, source=path.name, file=str(path), target=target, model=model))


def _digests_of(build: Path) -> Mapping[str, str]:
    """sha256 (hex) of every file of a build, as its manifest lists them."""
    try:
        return dict(_read_document(build / BUILD_MANIFEST)["files"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{build / BUILD_MANIFEST} is damaged", why="it lists no files", fix="build the model again"
        ) from error


def _read_document(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged", why=str(error), fix="build the model again") from error


def golden_ways(chosen: Deliverable, target: Target) -> tuple[tuple[str, str], ...]:
    """(runtime, mode) whose answers the build holds and the board must give; the target's first choice comes first.

    Raises ModelError if there is none: a board that cannot be held to an answer is not deployed to.
    """
    digests = _digests_of(chosen.path.parent)
    possible = sorted(
        (way for way in SAME_BITS_EVERYWHERE if way[0] in target.runtimes),
        key=lambda way: (target.runtimes.index(way[0]), way[1] != "default"),
    )
    held = tuple(way for way in possible if golden_file(chosen, *way) in digests)
    ways = tuple(way for way in held if _same_bits(chosen, way[0], target))
    if held and not ways:
        raise ModelError(
            f"the answers of {chosen.path.name} are not the same bits on {target.name}",
            why=f"{held[0][0]} may round a sum or product of two tensors otherwise on {target.architecture} "
            f"than on {platform.machine()}, and this model has one whose scales do not exclude it",
            fix="bundle the .tflite of the same build",
        )
    if not ways:
        asked = ", ".join(f"{runtime} ({mode})" for runtime, mode in possible)
        raise ModelError(
            f"the build holds no answers of {chosen.path.name} that {target.name} must give",
            why=f"none of {asked} was run when it was built",
            fix="build it where one of these runtimes is installed; emb doctor says which are",
        )
    return ways


def _same_bits(chosen: Deliverable, runtime: str, target: Target) -> bool:
    """Whether the target must give the bits that this machine gave when it built the model."""
    if target.architecture in ("any", platform.machine()):
        return True
    return runtime != "onnxruntime" or all_alike(chosen.graph)


def golden_file(chosen: Deliverable, runtime: str, mode: str) -> str:
    """Where in the build the golden outputs lie."""
    return f"golden/{chosen.path.name}.{runtime}.{mode}.npy"


def copy_files(build: Path, folder: Path, copies: Mapping[str, str]) -> None:
    """Files of the build, each of them still what its manifest says. Raises ModelError otherwise."""
    digests = _digests_of(build)
    for name, source in copies.items():
        target = folder / name
        with explained("write", folder):
            target.parent.mkdir(exist_ok=True)
        try:
            shutil.copyfile(build / source, target)
        except FileNotFoundError as error:
            raise ModelError(f"{build / source} is missing", fix="build the model again") from error
        # A file that was compiled afterwards is not in the manifest.
        if source in digests:
            _require_untouched(build / source, digests[source], copy=target)


def compiled_file(chosen: Deliverable, target: Target) -> str:
    """The name of the model's compiled form in the build, or ""."""
    suffix = _COMPILED_SUFFIXES.get(target.accelerator.kind)
    if suffix is None or chosen.format != "tflite":
        return ""
    name = chosen.path.stem + suffix
    return name if (chosen.path.parent / name).is_file() else ""


def contract_of(chosen: Deliverable) -> Contract:
    """The contract of the build that a model lies in, with this one model. Raises ModelError if it is damaged."""
    path = chosen.path.parent / "contract.json"
    try:
        contract = decode(Contract, _read_document(path), source=str(path))
    except SpecError as error:
        raise ModelError(error.what, why=error.why, fix="build the model again") from error
    return replace(contract, models=tuple(model for model in contract.models if model.file == chosen.path.name))


def require_classifier(contract: Contract) -> None:
    """What run.py takes for granted: images go in, and a score for each label comes out."""
    (model,) = contract.models
    image_shape(model.input)
    scores = math.prod(model.output.shape)
    if scores != len(contract.labels):
        raise ModelError(
            f"{model.file} gives {scores} scores; its contract names {len(contract.labels)} labels",
            fix="build the model again",
        )
