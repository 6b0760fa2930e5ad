"""The main job: runs a plan's stages over the store and writes what they made as one directory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from emb import data as data_sets
from emb.bench import describe_machine, machine_digest
from emb.deploy import edgetpu_forms
from emb.errors import EmbError, ModelError, SpecError
from emb.pipeline import output, pretrained, targeting
from emb.pipeline.digests import digest_of_path
from emb.pipeline.edgetpu import in_forms
from emb.pipeline.engine import Engine, choose_engine, keras_on_tensorflow
from emb.pipeline.json_files import read_json, write_json
from emb.pipeline.plan import TIMED, Plan, PlannedFile, plan
from emb.pipeline.recipes import load_target
from emb.pipeline.request import data_request, resolve
from emb.pipeline.rows import assemble
from emb.pipeline.stage import Context, Listener, Silence, Stage, Work, code_digest, versions
from emb.pipeline.targeting import Aim
from emb.pipeline.trial_plan import trial_plan
from emb.spec.recipe import Recipe
from emb.spec.report import Report
from emb.store import Artifact, Step, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything that must be known before the first stage runs."""

    recipe: Recipe
    engine: Engine
    plan: Plan
    context: Context
    store: Store
    data_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What `build` takes, as a value that can go to another process.

    is_trial: of a search, to be judged by validation images: see emb.pipeline.trial_plan.
    """

    recipe: str | Path
    data: str | Path | None = None
    data_dir: Path | None = None
    trust_model: bool = False
    output_directory: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    assignments: tuple[str, ...] = ()
    backend: str | None = None
    devices: int | str | None = None
    target: str | None = None
    force: bool = False
    forms: bool = False
    is_trial: bool = False


def build(
    recipe: str | Path,
    *,
    data: str | Path | None = None,
    data_dir: Path | None = None,
    trust_model: bool = False,
    output_directory: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
    listener: Listener | None = None,
    backend: str | None = None,
    devices: int | str | None = None,
    target: str | None = None,
    force: bool = False,
    forms: bool = False,
) -> Report:
    """Build a recipe or somebody's own model: train, quantize, export, check, verify, measure, report.

    recipe: a recipe's name, a .toml file, or a model (.keras, .h5, SavedModel, .tflite, .onnx).
    data: a data set's name, a folder with one directory per class, or a .npz file.
    overrides: dotted field -> value, e.g. {"train.epochs": 3}.  assignments: the same as texts, "train.epochs=3".
    output_directory: builds/<name>-<schemes> by default.
    backend, devices: what to train on, see `choose_engine`.
    target: a target's name or .toml file. What does not fit it is refused, before the training where that can be
    known; with `force` it is built all the same, and the report says what does not fit.
    forms: change the recipe to the forms that the target's accelerator takes; the report says which.

    What fails for one file on one runtime stands in `errors` of the report; everything else raises EmbError,
    and nothing is written then.
    """
    order = Order(
        recipe=recipe,
        data=data,
        data_dir=data_dir,
        trust_model=trust_model,
        output_directory=output_directory,
        overrides=overrides or {},
        assignments=tuple(assignments),
        backend=backend,
        devices=devices,
        target=target,
        force=force,
        forms=forms,
    )
    return build_order(order, listener=listener)


def build_order(order: Order, *, listener: Listener | None = None) -> Report:
    """`build` of an order."""
    with keras_on_tensorflow():
        directory, taken, ready = _ready(order, listener)
        done, failures = run(ready)
        report = assemble(
            ready.plan, done, failures, recipe=ready.recipe, data_digest=ready.data_digest, directory=directory
        )
        report = replace(report, notes=(*report.notes, *_forms_note(taken)))
        output.write(report, ready.plan, done, recipe=ready.recipe)
    return report


def build_untimed(order: Order, *, listener: Listener | None = None) -> None:
    """Everything of a build into the store but what a busy machine would spoil, the times. Writes no directory."""
    with keras_on_tensorflow():
        _, _, ready = _ready(order, listener)
        _, failures = run(_untimed(ready))
    if order.is_trial and failures:
        raise next(iter(failures.values()))


def judge_order(order: Order, *, timed: bool) -> tuple[PlannedFile, Mapping[str, Artifact]]:
    """The file that a trial is judged by, and the artifacts of all its stages; whatever is in the store is found there.

    timed: take its times as well. Raises the EmbError of a stage that fails.
    """
    with keras_on_tensorflow():
        _, _, ready = _ready(order, None)
        done, failures = run(ready if timed else _untimed(ready))
    if failures:
        raise next(iter(failures.values()))
    return ready.plan.files[0], done


def _untimed(ready: Prepared) -> Prepared:
    stages = tuple(stage for stage in ready.plan.stages if stage.group != TIMED)
    return replace(ready, plan=replace(ready.plan, stages=stages))


def in_store(order: Order) -> tuple[tuple[str, ...], bool]:
    """(keys of what the store holds of `build_untimed`, whether that is all). Makes nothing."""
    with keras_on_tensorflow():
        _, _, ready = _ready(order, None)
        done: dict[str, Artifact] = {}
        for stage in ready.plan.stages:
            if stage.group == TIMED or not all(need in done for need in stage.needs):
                continue
            if found := ready.store.find(stage.step(done)):
                done[stage.name] = found
    missing = (stage for stage in ready.plan.stages if stage.group != TIMED and stage.name not in done)
    # What is optional may have failed.
    return tuple(artifact.directory.name for artifact in done.values()), all(stage.optional for stage in missing)


def _ready(order: Order, listener: Listener | None) -> tuple[Path, Mapping[str, str], Prepared]:
    """(where the build goes, the forms that were taken, what its stages need)."""
    wanted = resolve(str(order.recipe), data=order.data, overrides=order.overrides, assignments=order.assignments)
    directory = output.directory_for(wanted, order.output_directory)
    aim = _aim_at(order.target, force=order.force, forms=order.forms)
    wanted, taken = in_forms(wanted, aim.target) if aim and order.forms else (wanted, {})
    wanted = targeting.with_kernels(wanted, aim.target) if aim else wanted
    engine = engine_for(wanted, backend=order.backend, devices=order.devices)
    output.require_replaceable(directory)
    ready = prepare(wanted, engine, data_dir=order.data_dir, trust_model=order.trust_model, listener=listener, aim=aim)
    if order.is_trial:
        ready = replace(ready, plan=trial_plan(ready.plan, ready.recipe, data_digest=ready.data_digest))
    return directory, taken, ready


def _forms_note(taken: Mapping[str, str]) -> tuple[str, ...]:
    if not taken:
        return ()
    return (f"built with {edgetpu_forms.told(taken)}, the forms that the target's accelerator takes",)


def _aim_at(target: str | None, *, force: bool, forms: bool) -> Aim | None:
    if target is not None:
        return Aim(target=load_target(target), force=force)
    if forms:
        raise SpecError(
            "--forms does not apply to a build without a target",
            why="it takes the forms that the target's accelerator needs",
            fix="leave it out, or name the target: --target NAME",
        )
    if force:
        raise SpecError(
            "--force does not apply to a build without a target",
            why="it goes on where a model does not fit its target",
            fix="leave it out, or name the target: --target NAME",
        )
    return None


def engine_for(recipe: Recipe, *, backend: str | None, devices: int | str | None) -> Engine:
    """What the recipe is trained on; KERAS_BACKEND is no matter where nothing is trained."""
    if recipe.train.epochs or backend or devices:
        return choose_engine(backend=backend, devices=devices)
    return Engine()


def prepare(
    recipe: Recipe,
    engine: Engine,
    *,
    data_dir: Path | None,
    trust_model: bool,
    listener: Listener | None,
    gradients: bool = False,
    aim: Aim | None = None,
) -> Prepared:
    """Look at the model and the data and plan the stages. Raises EmbError for whatever cannot be built."""
    store = Store()
    listener = listener or Silence()
    model_digest = ""
    if recipe.model.file:
        model_digest = digest_of_path(Path(recipe.model.file))
        recipe = _with_shape_of_model(recipe, store, model_digest=model_digest, trust_model=trust_model)
    recipe = pretrained.prepared(recipe)
    weights = pretrained.fetch(recipe, progress=listener.downloading)
    request = data_request(recipe, data_dir=data_dir)
    context = Context(recipe, request, trust_model, listener, gradients=gradients)
    data_digest = data_sets.digest(recipe.data.name, request)
    planned = plan(
        recipe,
        data_digest=data_digest,
        model_digest=digest_of_path(weights) if weights else model_digest,
        machine_digest=machine_digest(describe_machine()),
        engine=engine,
        gradients=gradients,
        aim=aim,
    )
    return Prepared(recipe=recipe, engine=engine, plan=planned, context=context, store=store, data_digest=data_digest)


def _with_shape_of_model(recipe: Recipe, store: Store, *, model_digest: str, trust_model: bool) -> Recipe:
    """The recipe with the input shape that the user's model has, which decides how the images are scaled."""
    from emb.export import printing_to_log
    from emb.export.source import open_source

    def describe(folder: Path) -> None:
        with printing_to_log():
            source = open_source(Path(recipe.model.file), trust=trust_model)
        write_json(folder / "source.json", {"shape": source.input_shape})

    step = Step(
        name="describe",
        inputs={"model": model_digest},
        parameters={"suffix": Path(recipe.model.file).suffix, "trusted": trust_model},
        tools=versions(("keras", "tensorflow", "onnx", "ai-edge-litert")),
        code=code_digest(("export", "pipeline/build.py")),
    )
    shape = tuple(read_json(store.run(step, describe).path("source.json"))["shape"])
    if recipe.input.shape not in ((), shape):
        raise ModelError(
            f"{recipe.model.file} takes images of shape {shape}",
            why=f"input.shape says {recipe.input.shape}",
            fix="leave input.shape out; it follows from the model",
        )
    return replace(recipe, input=replace(recipe.input, shape=shape))


def run(ready: Prepared) -> tuple[dict[str, Artifact], dict[str, EmbError]]:
    """Every stage in turn. A failed optional stage, and what needs it, is left out."""
    context = ready.context
    done: dict[str, Artifact] = {}
    failures: dict[str, EmbError] = {}
    for stage in ready.plan.stages:
        if any(need in failures for need in stage.needs):
            failures[stage.name] = next(failures[need] for need in stage.needs if need in failures)
            continue
        context.listener.stage_begins(stage.name)
        try:
            artifact = ready.store.run(stage.step(done), partial(_work, stage=stage, context=context, done=done))
        except EmbError as error:
            # Only what failed through no fault of the user's is one row's matter.
            if not stage.optional or error.exit_code == EmbError.exit_code:
                raise
            failures[stage.name] = error
            context.listener.failed(f"{stage.name}: {error}")
            continue
        done[stage.name] = artifact
        context.listener.stage_ends(stage.name, cached=artifact.cached, seconds=artifact.seconds)
    return done, failures


def _work(folder: Path, *, stage: Stage, context: Context, done: Mapping[str, Artifact]) -> None:
    work = Work(folder, context, done)
    if not stage.chatty:
        stage.work(work)
        return
    from emb.export import printing_to_log

    with printing_to_log():
        stage.work(work)
