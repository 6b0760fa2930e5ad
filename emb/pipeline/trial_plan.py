"""The part of a plan by which one trial of a search is judged: one file, on the validation images. Runs nothing."""

from __future__ import annotations

from dataclasses import replace

from emb.pipeline import planned
from emb.pipeline.plan import TIMED, Plan, PlannedFile
from emb.pipeline.stage import Stage
from emb.pipeline.targeting import FIT, FORECAST
from emb.pipeline.validation import RUNTIME_OF
from emb.spec.recipe import Recipe


def judged_file(plan: Plan, recipe: Recipe) -> PlannedFile:
    """The file that a trial is judged by: the one for the target, or that of the recipe's first scheme."""
    if plan.deployment and plan.deployment.file:
        return next(file for file in plan.files if file.name == plan.deployment.file)
    scheme = recipe.quantize.schemes[0]
    return next(file for file in plan.files if file.scheme.name == scheme)


def validation_of(file: PlannedFile) -> str:
    """The name of the stage that judges it."""
    return f"validate {file.stage}"


def time_of(file: PlannedFile) -> str:
    """The name of the stage that takes its times: on the runtime that judges it, in its default mode."""
    return next(row.measure for row in file.rows if row.runtime == RUNTIME_OF[file.format] and row.mode == "default")


def trial_plan(plan: Plan, recipe: Recipe, *, data_digest: str) -> Plan:
    """The stages that the judged file, its check, its validation and its times need; none that looks at a test image.

    Whether it fits the target stays in.
    """
    file = judged_file(plan, recipe)
    stages = {stage.name: stage for stage in plan.stages}
    validation = planned.validate_stage(recipe, file.format, file.stage, data_digest=data_digest)
    wanted = {file.check, time_of(file), FIT, FORECAST} & stages.keys()
    needed = _with_needs({*wanted, file.stage}, stages)
    kept = [stage for stage in plan.stages if stage.name in needed]
    timed = [stage for stage in kept if stage.group == TIMED]
    return replace(plan, stages=(*(stage for stage in kept if stage.group != TIMED), validation, *timed), files=(file,))


def _with_needs(names: set[str], stages: dict[str, Stage]) -> set[str]:
    """The stages, and all that they need."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += stages[name].needs
    return found
