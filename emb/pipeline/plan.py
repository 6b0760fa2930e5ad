"""From a recipe to the stages that build it. Resolves every name now; runs nothing and loads no data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emb.errors import ModelError, SpecError
from emb.pipeline import planned, planned_pruning, targeting
from emb.pipeline.engine import Engine
from emb.pipeline.measuring import ways_to_run
from emb.pipeline.planned import Format
from emb.pipeline.stage import Stage
from emb.pipeline.targeting import Aim, Deployment
from emb.spec.pruning import SMALLER
from emb.spec.recipe import Recipe
from emb.spec.scheme import Scheme

TIMED = "measure"
"""The group of stages that take times, which other work on the machine would spoil."""


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
    """stages: in an order that can be followed.  files: what the user gets.

    deployment: which of them the target runs, None if none was named.
    """

    stages: tuple[Stage, ...]
    files: tuple[PlannedFile, ...]
    deployment: Deployment | None = None


def plan(
    recipe: Recipe,
    *,
    data_digest: str,
    model_digest: str,
    machine_digest: str,
    engine: Engine,
    gradients: bool,
    aim: Aim | None = None,
) -> Plan:
    """The stages of `recipe`. Digests: of the data's files, of the model or the weights given (or ""), of this machine.

    engine: what the model is trained on.  gradients: record their norms; such a training is kept apart from one
    without, as the two need not end with the same bits.  aim: the target that must be able to run it.
    Raises SpecError or ModelError for names and combinations that cannot be built.
    """
    model, model_file = planned.model_stage(
        recipe, data_digest=data_digest, model_digest=model_digest, engine=engine, gradients=gradients
    )
    models, made = [model], dict[str, Stage]()
    if recipe.prune.is_asked_for:
        unpruned = planned_pruning.unpruned_stage(model, recipe)
        compared = planned_pruning.comparison_stage(
            recipe, _compared(recipe), unpruned=model_file, data_digest=data_digest, machine_digest=machine_digest
        )
        made[compared.name] = compared
        model, model_file = planned_pruning.prune_stage(
            recipe, unpruned=model_file, data_digest=data_digest, machine_digest=machine_digest, engine=engine
        )
        models = [unpruned, model]
    formats = _formats(recipe)
    float_refusal = targeting.float_refusal(recipe, aim) if recipe.repair.is_wanted else ""
    files = []
    for scheme, file_format in _wanted(recipe, formats):
        file, stages = _file(
            *(recipe, scheme, file_format),
            model_file=model_file,
            is_first_format=file_format == formats[0],
            data_digest=data_digest,
            machine_digest=machine_digest,
            float_refusal=float_refusal,
        )
        files.append(file)
        for stage in stages:
            made.setdefault(stage.name, stage)
    first = [planned.data_stage(recipe, data_digest)]
    deployed = targeting.deployment(files, aim, schemes=recipe.quantize.schemes) if aim else None
    if deployed and deployed.file:
        chosen = next(file for file in files if file.name == deployed.file)
        # What pruning leaves may be smaller than what would be forecast.
        if recipe.train.epochs and chosen.format == "tflite" and recipe.prune.method not in SMALLER:
            first.append(targeting.forecast_stage(recipe, deployed.aim, chosen.scheme, model_digest=model_digest))
        if deployed.is_compiled:
            made[targeting.COMPILE] = targeting.compile_stage(deployed)
        made[targeting.FIT] = targeting.fit_stage(deployed)
    if any("calibration" in stage.needs for stage in (model, *made.values())):
        # Before the training, which would be in vain if there were too few images.
        first.append(planned.calibration_stage(recipe, data_digest))
    first += models
    if recipe.prune.epochs if recipe.prune.is_asked_for else recipe.train.epochs:
        first.append(planned.curves_stage(recipe))
    first.append(planned.reference_stage(recipe, model_file, data_digest=data_digest))
    return Plan(stages=(*first, *_in_order(made)), files=tuple(files), deployment=deployed)


def _file(
    recipe: Recipe,
    scheme: Scheme,
    file_format: Format,
    *,
    model_file: str,
    is_first_format: bool,
    data_digest: str,
    machine_digest: str,
    float_refusal: str,
) -> tuple[PlannedFile, list[Stage]]:
    """One file of the build, and all stages from the model to its latency. The build goes on without other formats."""
    stages = _changing_stages(recipe, scheme, model_file, data_digest=data_digest, float_refusal=float_refusal)
    source, source_file = (stages[-1].name, "model.keras") if stages else ("model", model_file)
    made = planned.float_stage(
        recipe, file_format, source_file, optional=bool(stages) or not is_first_format, source=source
    )
    chosen = source if stages else ""
    stages = [*stages, made]
    if scheme.name != "float32":
        made = planned.quantize_stage(recipe, file_format, scheme, source=made.name, chosen=chosen)
        stages.append(made)
    check = planned.check_stage(file_format, scheme, source=made.name, optional=made.optional, chosen=chosen)
    stages.append(check)
    rows = []
    ways = ways_to_run(file_format, scheme=scheme.name, with_reference_kernels=scheme.integer_only)
    for runtime, mode, absence in ways:
        verify = planned.verify_stage(recipe, file_format, made.name, runtime, mode, data_digest=data_digest)
        measure = planned.measure_stage(recipe, file_format, made.name, runtime, mode, machine_digest=machine_digest)
        if not absence:
            stages += [verify, measure]
        rows.append(PlannedRow(runtime=runtime, mode=mode, absence=absence, verify=verify.name, measure=measure.name))
    file = PlannedFile(
        name=f"{recipe.name}-{scheme.name}.{file_format}",
        format=file_format,
        scheme=scheme,
        stage=made.name,
        check=check.name,
        rows=tuple(rows),
    )
    return file, stages


def _changing_stages(
    recipe: Recipe, scheme: Scheme, model_file: str, *, data_digest: str, float_refusal: str
) -> list[Stage]:
    """What changes the model's weights on the way to the files of one scheme, in order."""
    from emb.quantize import SCHEMES

    if not scheme.trained and not (recipe.repair.is_wanted and scheme.activations == "int8"):
        return []
    if recipe.model.file and source_format(recipe.model.file) != "keras":
        raise ModelError(
            f"the weights of {recipe.model.file} cannot be changed",
            why="emb trains and repairs Keras models; this is a file of a graph alone",
            fix="give the .keras or .h5 file, or choose int8 and leave --max-drop out",
        )
    stages = [planned.qat_stage(recipe, model_file, scheme, data_digest=data_digest)] if scheme.trained else []
    if recipe.repair.is_wanted and scheme.activations == "int8":
        source, source_file = (stages[-1].name, "model.keras") if stages else ("model", model_file)
        # int8 and int8-uint8 are one graph inside.
        measured = scheme if scheme.trained else SCHEMES.get("int8").SCHEME
        stages.append(
            planned.repair_stage(
                *(recipe, source_file, measured), source=source, data_digest=data_digest, float_refusal=float_refusal
            )
        )
    return stages


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
    if recipe.repair.is_wanted and not any(scheme.activations == "int8" for scheme in schemes):
        raise SpecError(
            "--max-drop does not apply to a build without an int8 file",
            why="it bounds what 8-bit integers lose, and repairs them",
            fix="leave it out, or build int8 as well: --quantize int8",
        )
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


def _compared(recipe: Recipe) -> Scheme:
    """The scheme in which the unpruned model is compared: the first one that is asked for and exists as .tflite."""
    from emb.quantize import SCHEMES

    schemes: list[Scheme] = [SCHEMES.get(name).SCHEME for name in (*recipe.quantize.schemes, "float32")]
    return next(scheme for scheme in schemes if "tflite" in scheme.formats)


def _schemes_of(file_format: Format) -> list[str]:
    from emb.quantize import SCHEMES

    return [name for name in SCHEMES.names() if file_format in SCHEMES.get(name).SCHEME.formats]


def _in_order(made: dict[str, Stage]) -> list[Stage]:
    """Exports, then checks, then what runs the files; latency last, when nothing else works any more."""
    groups = ["qat", "repair", "export", "quantize", "compile", "check", "verify", TIMED]
    return sorted(made.values(), key=lambda stage: groups.index(stage.group))
