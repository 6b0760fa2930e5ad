"""From a recipe to the stages that build it. Resolves every name now; runs nothing and loads no data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from emb.errors import ModelError, SpecError
from emb.pipeline import stages
from emb.pipeline.measuring import ways_to_run
from emb.pipeline.stage import Stage, versions
from emb.spec.recipe import Recipe
from emb.spec.scheme import Scheme

Format = Literal["tflite", "onnx"]

_KERAS = ("keras", "tensorflow", "numpy")
_CONVERTERS = {"tflite": ("tensorflow", "keras"), "onnx": ("tensorflow", "keras", "tf2onnx", "onnx")}
_QUANTIZERS = {
    "tflite": ("ai-edge-quantizer", "ai-edge-litert", "flatbuffers"),
    "onnx": ("onnxruntime", "onnx"),
}
_OWN_CODE = ("pipeline/stages.py", "pipeline/measuring.py", "spec")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRow:
    """One row of the table. absence: why it cannot be measured here, empty if it can."""

    runtime: str
    mode: str
    absence: str
    verify: str
    measure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFile:
    """One file of the build. stage: what makes it.  check: what reads it back."""

    name: str
    format: Format
    scheme: Scheme
    stage: str
    check: str
    rows: tuple[PlannedRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """stages: in an order that can be followed.  files: what the user gets."""

    stages: tuple[Stage, ...]
    files: tuple[PlannedFile, ...]


def plan(recipe: Recipe, *, data_digest: str, model_digest: str, machine_digest: str) -> Plan:
    """The stages of `recipe`. Digests: of the data's files, of the user's own model (or ""), of this machine.

    Raises SpecError or ModelError for names and combinations that cannot be built.
    """
    model, model_file = _model_stage(recipe, data_digest=data_digest, model_digest=model_digest)
    formats = _formats(recipe)
    made: dict[str, Stage] = {}
    files = []
    for scheme, file_format in _wanted(recipe, formats):
        float_stage = _float_stage(recipe, file_format, model_file)
        made.setdefault(float_stage.name, float_stage)
        stage = float_stage
        if scheme.name != "float32":
            stage = _quantize_stage(recipe, file_format, scheme, source=float_stage.name)
            made[stage.name] = stage
        check = _check_stage(file_format, scheme, source=stage.name, optional=stage.optional)
        made[check.name] = check
        rows = []
        ways = ways_to_run(file_format, scheme=scheme.name, with_reference_kernels=scheme.integer_only)
        for runtime, mode, absence in ways:
            verify = _verify_stage(recipe, file_format, stage.name, runtime, mode, data_digest=data_digest)
            measure = _measure_stage(recipe, file_format, stage.name, runtime, mode, machine_digest=machine_digest)
            if not absence:
                made |= {verify.name: verify, measure.name: measure}
            rows.append(
                PlannedRow(runtime=runtime, mode=mode, absence=absence, verify=verify.name, measure=measure.name)
            )
        files.append(
            PlannedFile(
                name=f"{recipe.name}-{scheme.name}.{file_format}",
                format=file_format,
                scheme=scheme,
                stage=stage.name,
                check=check.name,
                rows=tuple(rows),
            )
        )
    first = [_data_stage(recipe, data_digest)]
    if any(file.scheme.calibrated for file in files):
        # Before the training, which would be in vain if there were too few images.
        first.append(_calibration_stage(recipe, data_digest))
    first += [model, _reference_stage(recipe, model_file, data_digest=data_digest)]
    return Plan(stages=(*first, *_in_order(made)), files=tuple(files))


def source_format(path: str) -> Literal["keras", "tflite", "onnx"]:
    """What kind of model a path holds, by its suffix. Raises ModelError for a suffix that emb does not read."""
    suffix = Path(path).suffix.lower()
    if suffix in (".keras", ".h5", ".hdf5") or Path(path).is_dir():
        return "keras"
    if suffix in (".tflite", ".onnx"):
        return "tflite" if suffix == ".tflite" else "onnx"
    raise ModelError(
        f"{path} is no model that emb reads",
        why=f"its name ends in {suffix!r}" if suffix else "its name has no suffix",
        fix="give a .keras, .h5, .tflite or .onnx file, or a SavedModel folder",
    )


def _formats(recipe: Recipe) -> tuple[Format, ...]:
    """Formats to export, the reference's first. A .tflite or .onnx file stays in its own format."""
    kind = source_format(recipe.model.file) if recipe.model.file else "keras"
    if kind == "keras":
        return tuple(sorted(recipe.export.formats, key=("tflite", "onnx").index))
    return (kind,)


def _wanted(recipe: Recipe, formats: tuple[Format, ...]) -> list[tuple[Scheme, Format]]:
    """(scheme, format) of every file. The float32 reference comes first, asked for or not."""
    from emb.quantize import SCHEMES

    schemes = [SCHEMES.get(name).SCHEME for name in recipe.quantize.schemes]
    pairs = [(scheme, one) for one in formats for scheme in schemes if one in scheme.formats]
    homeless = [scheme.name for scheme in schemes if not any(one in scheme.formats for one in formats)]
    if homeless:
        raise SpecError(
            f"{', '.join(homeless)} does not exist as {' or '.join(formats)}",
            fix=f"schemes of {formats[0]}: {', '.join(_schemes_of(formats[0]))}",
        )
    float32 = SCHEMES.get("float32").SCHEME
    reference = (float32, formats[0])
    return [reference, *(pair for pair in pairs if pair != reference)]


def _schemes_of(file_format: Format) -> list[str]:
    from emb.quantize import SCHEMES

    return [name for name in SCHEMES.names() if file_format in SCHEMES.get(name).SCHEME.formats]


def _in_order(made: dict[str, Stage]) -> list[Stage]:
    """Exports, then checks, then what runs the files; latency last, when nothing else works any more."""
    groups = ["export", "quantize", "check", "verify", "measure"]
    return sorted(made.values(), key=lambda stage: groups.index(stage.group))


def _data_stage(recipe: Recipe, digest: str) -> Stage:
    return Stage(
        name="data",
        group="data",
        work=stages.data,
        inputs={"data": digest},
        parameters=_data_parameters(recipe),
        tools=versions(("numpy", "pillow")),
        packages=("data", *_OWN_CODE),
    )


def _calibration_stage(recipe: Recipe, digest: str) -> Stage:
    return Stage(
        name="calibration",
        group="data",
        work=stages.calibration,
        inputs={"data": digest},
        parameters={**_data_parameters(recipe), "images": recipe.quantize.calibration_images},
        tools=versions(("numpy", "pillow")),
        packages=("data", *_OWN_CODE),
    )


def _model_stage(recipe: Recipe, *, data_digest: str, model_digest: str) -> tuple[Stage, str]:
    """The stage called "model", and the name of the model in its artifact."""
    own = recipe.model.file
    common: dict[str, Any] = {"name": "model", "group": "train", "chatty": True}
    if own and recipe.train.epochs == 0:
        path = Path(own)
        stage = Stage(
            **common,
            work=stages.adopt,
            needs=("data",),
            inputs={"model": model_digest},
            tools=versions(_KERAS),
            packages=("export", *_OWN_CODE),
        )
        return stage, "model" if path.is_dir() else f"model{path.suffix.lower()}"
    stage = Stage(
        **common,
        work=stages.tune if own else stages.train,
        inputs={"data": data_digest} | ({"model": model_digest} if own else {}),
        parameters={
            **_data_parameters(recipe),
            "builder": recipe.model.builder,
            "arguments": dict(recipe.model.arguments),
            "pixels": recipe.input.pixels,
            "train": asdict(recipe.train),
        },
        tools=versions(_KERAS),
        packages=("train", "data", "export" if own else "zoo", *_OWN_CODE),
        resumable=True,
    )
    return stage, "model.keras"


def _reference_stage(recipe: Recipe, model_file: str, *, data_digest: str) -> Stage:
    return Stage(
        name="reference",
        group="reference",
        work=partial(stages.reference, model=model_file),
        needs=("data", "model"),
        inputs={"data": data_digest},
        parameters={**_data_parameters(recipe), "pixels": recipe.input.pixels},
        tools=versions((*_KERAS, "ai-edge-litert", "onnxruntime")),
        packages=("export", "data", "bench", "runtimes", *_OWN_CODE),
        chatty=True,
    )


def _float_stage(recipe: Recipe, file_format: Format, model_file: str) -> Stage:
    return Stage(
        name=f"float32.{file_format}",
        group="export",
        work=partial(stages.export_float, file_format=file_format, model=model_file),
        needs=("model",),
        parameters={"format": file_format, "pixels": recipe.input.pixels, "softmax": recipe.export.softmax},
        tools=versions(_CONVERTERS[file_format]),
        packages=("export", *_OWN_CODE),
        chatty=True,
        optional=file_format != _formats(recipe)[0],
    )


def _quantize_stage(recipe: Recipe, file_format: Format, scheme: Scheme, *, source: str) -> Stage:
    method = {"method": recipe.quantize.calibration_method} if scheme.calibrated else {}
    return Stage(
        name=f"{scheme.name}.{file_format}",
        group="quantize",
        work=partial(stages.quantize, file_format=file_format, scheme=scheme, source=source),
        needs=(source, "calibration") if scheme.calibrated else (source,),
        parameters={"scheme": scheme.name, **method},
        tools=versions(_QUANTIZERS[file_format]),
        packages=("quantize", *_OWN_CODE),
        chatty=True,
        optional=True,
    )


def _check_stage(file_format: Format, scheme: Scheme, *, source: str, optional: bool) -> Stage:
    return Stage(
        name=f"check {source}",
        group="check",
        work=partial(stages.check, file_format=file_format, scheme=scheme, source=source),
        needs=(source,),
        parameters={"scheme": scheme.name},
        tools=versions(("ai-edge-litert", "onnx")),
        packages=("graph", "export", "pipeline/graphs.py", *_OWN_CODE),
        optional=optional,
    )


def _verify_stage(
    recipe: Recipe, file_format: Format, source: str, runtime: str, mode: str, *, data_digest: str
) -> Stage:
    return Stage(
        name=f"verify {source} on {runtime} {mode}",
        group="verify",
        work=partial(stages.verify, file_format=file_format, source=source, runtime=runtime, mode=mode),
        needs=("data", "reference", source),
        inputs={"data": data_digest},
        parameters={**_data_parameters(recipe), "pixels": recipe.input.pixels, "runtime": runtime, "mode": mode},
        tools=versions((runtime if runtime != "litert" else "ai-edge-litert", "numpy")),
        packages=("runtimes", "data", "bench", *_OWN_CODE),
        optional=True,
    )


def _measure_stage(
    recipe: Recipe, file_format: Format, source: str, runtime: str, mode: str, *, machine_digest: str
) -> Stage:
    return replace(
        _verify_stage(recipe, file_format, source, runtime, mode, data_digest=""),
        name=f"measure {source} on {runtime} {mode}",
        group="measure",
        work=partial(stages.measure, file_format=file_format, source=source, runtime=runtime, mode=mode),
        needs=("data", source),
        inputs={"machine": machine_digest},
        parameters={"pixels": recipe.input.pixels, "runtime": runtime, "mode": mode},
    )


def _data_parameters(recipe: Recipe) -> dict[str, Any]:
    """What decides the images beside the files' content."""
    return {
        "data": recipe.data.name,
        "shape": list(recipe.input.shape),
        "validation_fraction": recipe.data.validation_fraction,
        "seed": recipe.train.seed,
    }
