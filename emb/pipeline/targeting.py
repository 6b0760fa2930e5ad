"""What a build does for its target: which file the target runs, whether it fits, and what an accelerator's compiler
makes of it. Runs no model.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Protocol

from emb.bench.machine import has_amx, has_avx512
from emb.deploy import edgetpu_compiler
from emb.errors import ModelError, SpecError
from emb.pipeline import ethosu, untrained
from emb.pipeline.check import Check, check_model, require_fit
from emb.pipeline.json_files import read_json, write_json
from emb.pipeline.recipes import load_target
from emb.pipeline.stage import Stage, Work, versions
from emb.runtimes import RUNTIMES
from emb.spec.fit import Fault
from emb.spec.recipe import Recipe
from emb.spec.scheme import Scheme
from emb.spec.target import Target
from emb.store import sha256_of_file

FORECAST, COMPILE, FIT = "forecast", "compile", "fit"
FIT_FILE = "fit.json"
_CHECKING_CODE = (
    "deploy",
    "graph",
    "runtimes",
    "spec",
    "pipeline/check.py",
    "pipeline/edgetpu.py",
    "pipeline/ethosu.py",
    "pipeline/targeting.py",
    "pipeline/untrained.py",
)
# By the kind of the accelerator.
_INTEGERS_ALONE = {
    "edge-tpu": "the Edge TPU takes int8 .tflite alone",
    "ethos-u": "the Ethos-U takes .tflite of integers alone",
}
_FORCED = "build it all the same, with --force"
# What linux-x86-64 cannot count on and the machine at hand may have.
# XNNPACK, src/configs/gemm-config.c: 7x16c8 with AVX-512, 16x64c4 with AMX.
_AVX512_MAPS, _AMX_MAPS = 16, 64
# TensorFlow Lite Micro stops at the weights of these: it has no kernel that widens them (int4w: of a dense layer).
_NOT_ON_MICRO = ("dynamic", "float16", "int4w")


class BuiltFile(Protocol):
    """name: of the file.  stage: what makes it."""

    @property
    def name(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def scheme(self) -> Scheme: ...
    @property
    def stage(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """target: what is built for.  force: go on where it does not fit."""

    target: Target
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """file, format, stage: of the file that the target runs, all "" if none of the build does.

    is_compiled: whether the accelerator's compiler makes another of it.  other_files: file -> why the target does not
    run it.
    """

    aim: Aim
    file: str
    format: str
    stage: str
    is_compiled: bool
    other_files: dict[str, str]


def refusal(scheme: Scheme, file_format: str, target: Target) -> str:
    """Why the target runs no file of this scheme and format, or ""."""
    accelerator = target.accelerator.kind
    if accelerator == "edge-tpu" and (
        file_format != "tflite" or (scheme.weights, scheme.activations) != ("int8", "int8")
    ):
        return _INTEGERS_ALONE[accelerator]
    if accelerator == "ethos-u" and (file_format != "tflite" or not scheme.integer_only):
        return _INTEGERS_ALONE[accelerator]
    if accelerator == "ethos-u" and scheme.weights != "int8":
        return "the Ethos-U takes 8-bit weights alone"
    if not target.runtimes:
        if file_format != "tflite":
            return "TensorFlow Lite Micro reads .tflite alone"
        micro = f"TensorFlow Lite Micro has no kernels for {scheme.name} weights"
        return micro if scheme.name in _NOT_ON_MICRO else ""
    readers = [name for name in target.runtimes if file_format in RUNTIMES.get(name).FORMATS]
    if not readers:
        return f"{target.name} has {', '.join(target.runtimes)} alone"
    said = [RUNTIMES.get(name).refusal(scheme.name) for name in readers]
    return "" if None in said else "; ".join(dict.fromkeys(reason for reason in said if reason))


def float_refusal(recipe: Recipe, aim: Aim | None) -> str:
    """Why a repair may leave no layer of an int8 file in float32, or "".

    Raises SpecError where the recipe allows it for a target that takes integers alone, unless that is forced.
    """
    wish = recipe.repair.keep_float
    if wish == "never":
        return "repair.keep_float forbids it"
    if aim is None:
        return (
            "" if wish == "allow" else "allow it with --keep-float, or name a target that computes floats with --target"
        )
    reason = _INTEGERS_ALONE.get(aim.target.accelerator.kind, "")
    if wish == "allow" and reason and not aim.force:
        raise SpecError(
            f"--keep-float does not apply to {aim.target.name}",
            why=reason,
            fix=f"leave it out, choose a target without an accelerator, or {_FORCED}",
        )
    if wish == "allow":
        return ""
    if not reason and not aim.target.runtimes:
        return f"on {aim.target.name} floats take far longer than integers; allow it with --keep-float"
    return reason


def with_kernels(recipe: Recipe, target: Target) -> Recipe:
    """The recipe with the target's int8 kernels to build for, unless it names others."""
    quantize = recipe.quantize
    if quantize.lanes:
        return recipe
    in_few_bytes = recipe.prune.is_asked_for and recipe.prune.target.kind == "bytes"
    lanes, maps = kernels_of(target, in_few_bytes=in_few_bytes)
    return replace(recipe, quantize=replace(quantize, lanes=lanes, maps=quantize.maps or maps))


def kernels_of(target: Target, *, in_few_bytes: bool = False) -> tuple[int, int]:
    """Of the int8 kernels of the target's runtimes: the channels that they take at once, and those of the output that
    they compute at once; 0 for what is not known.

    in_few_bytes: do not count on AMX, to fill whose kernels takes several times the weights.
    """
    if target.architecture != "any" or platform.machine() != "x86_64" or not target.runtimes:
        return target.int8_lanes, target.int8_maps
    own = load_target("linux-x86-64")
    if has_amx() and not in_few_bytes:
        # It takes 64 channels as well. What fills those is larger by far, and for a recipe to ask for.
        return own.int8_lanes, _AMX_MAPS
    return own.int8_lanes, _AVX512_MAPS if has_avx512() else own.int8_maps


def deployment(files: Sequence[BuiltFile], aim: Aim, *, schemes: Sequence[str]) -> Deployment:
    """Which of `files` the target runs: the first int8 one, else the first of `schemes`, .tflite before .onnx.

    Raises ModelError if it runs none, unless that is forced.
    """
    reasons = {file.name: refusal(file.scheme, file.format, aim.target) for file in files}
    able = [file for file in files if not reasons[file.name] and file.scheme.name in schemes]
    others = {name: reason for name, reason in reasons.items() if reason}
    if not able:
        if not aim.force:
            raise _nothing_runs(aim.target, others)
        return Deployment(aim=aim, file="", format="", stage="", is_compiled=False, other_files=others)
    chosen = next((file for file in able if "int8" in file.scheme.name), able[0])
    return Deployment(
        aim=aim,
        file=chosen.name,
        format=chosen.format,
        stage=chosen.stage,
        is_compiled=aim.target.accelerator.kind == "ethos-u",
        other_files=others,
    )


def forecast_stage(recipe: Recipe, aim: Aim, scheme: Scheme, *, model_digest: str) -> Stage:
    """Whether the target can run what the training will give, before it begins."""
    return Stage(
        name=FORECAST,
        group="forecast",
        work=partial(_forecast, aim=aim, scheme=scheme.name),
        needs=("data",),
        inputs={"model": model_digest} if model_digest else {},
        parameters={
            "target": asdict(aim.target),
            "force": aim.force,
            "model": asdict(recipe.model),
            "scheme": scheme.name,
            "softmax": recipe.export.softmax,
            "pixels": recipe.input.pixels,
            **_compiler_of(aim.target),
        },
        tools=versions(("keras", "tensorflow", "ai-edge-litert", "ai-edge-quantizer", "ethos-u-vela")),
        packages=("zoo", "layers", "export", "quantize", *_CHECKING_CODE),
    )


def compile_stage(deployed: Deployment) -> Stage:
    """What Vela makes of the file that the target runs. Its failure leaves the other files as they are."""
    return Stage(
        name=COMPILE,
        group="compile",
        work=partial(_compile, deployed=deployed),
        needs=(deployed.stage,),
        parameters=asdict(deployed.aim.target.accelerator),
        tools=versions(("ethos-u-vela",)),
        packages=(*ethosu.CODE, "pipeline/targeting.py"),
        optional=True,
    )


def fit_stage(deployed: Deployment) -> Stage:
    """Whether the file fits the target; that it does not ends the build, unless it is forced."""
    return Stage(
        name=FIT,
        group="check",
        work=partial(_fit, deployed=deployed),
        needs=("model", deployed.stage, *((COMPILE,) if deployed.is_compiled else ())),
        parameters={
            "target": asdict(deployed.aim.target),
            "force": deployed.aim.force,
            "file": deployed.file,
            **_compiler_of(deployed.aim.target),
        },
        tools=versions(("ai-edge-litert", "onnx")),
        packages=_CHECKING_CODE,
        optional=True,
    )


def _compiler_of(target: Target) -> dict[str, str]:
    """The Edge TPU's compiler is the user's own, where there is one, and decides what fits."""
    if target.accelerator.kind != "edge-tpu":
        return {}
    compiler = edgetpu_compiler.find()
    return {"edgetpu_compiler": sha256_of_file(compiler) if compiler else "absent"}


def _forecast(work: Work, *, aim: Aim, scheme: str) -> None:
    recipe, trust = work.context.recipe, work.context.trust_model
    data = read_json(work.file("data", "data.json"))
    height, width, channels = data["shape"]
    classes = len(data["labels"])
    artifact = untrained.converted(
        recipe, shape=(height, width, channels), classes=classes, scheme=scheme, trust_model=trust
    )
    path, layers = untrained.model_of(artifact)
    found = check_model(
        path,
        source=recipe.name,
        file=f"{recipe.name}-{scheme}.tflite",
        target=aim.target,
        layers=layers,
        model=asdict(recipe.model),
    )
    _conclude(work, found, force=aim.force)


def _compile(work: Work, *, deployed: Deployment) -> None:
    path = work.file(deployed.stage, f"model.{deployed.format}")
    ethosu.write_compiled(path, deployed.aim.target.accelerator, work.folder)


def _fit(work: Work, *, deployed: Deployment) -> None:
    path = work.file(deployed.stage, f"model.{deployed.format}")
    model = work.done["model"]
    layers = untrained.layer_names(model.path("model.keras")) if "model.keras" in model.files else ()
    found = check_model(
        path,
        source=deployed.file,
        file=deployed.file,
        target=deployed.aim.target,
        layers=layers,
        model=asdict(work.context.recipe.model),
        compiled=ethosu.read_compiled(work.done[COMPILE]) if deployed.is_compiled else None,
        keep_in=work.folder,
    )
    _conclude(work, found, force=deployed.aim.force)


def _conclude(work: Work, found: Check, *, force: bool) -> None:
    if not force:
        require_fit(found, otherwise=f"or {_FORCED}")
    write_json(work.folder / FIT_FILE, found.to_json())


def _nothing_runs(target: Target, reasons: dict[str, str]) -> ModelError:
    fault = nothing_runs(target, reasons)
    return ModelError(fault.what, why=fault.why, fix=f"{fault.fix}, or {_FORCED}")


def nothing_runs(target: Target, reasons: dict[str, str]) -> Fault:
    """The fault of a build without a file for its target."""
    return Fault(
        what=f"{target.name} runs none of the files of this build",
        why="\n       ".join(f"{name}: {reason}" for name, reason in reasons.items()),
        fix="build int8 as well, --quantize int8",
    )
