"""The work of the stages that prune: from the trained model to a smaller one that was trained on, and the comparison.

Decides neither order nor names. What is pruned how stands in emb.prune, what a recipe asks for in emb.spec.recipe.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.pipeline.conversion import converted, median_us
from emb.pipeline.engine import Engine
from emb.pipeline.fine_tuning import HISTORY, MODEL, Lesson, fine_tune, form_of, opened, pixels_of
from emb.pipeline.json_files import read_json, write_json
from emb.pipeline.prune_steps import PruneStep, prune_step
from emb.pipeline.stage import Work
from emb.pipeline.stages import answers_of
from emb.pipeline.training_process import fine_tune_in_own_process
from emb.spec.pruned import PrunedLayer, Pruning, Unpruned
from emb.spec.scheme import Scheme

if TYPE_CHECKING:
    import keras

PLAN = "prune.json"
# Of ratios that differ by the rounding of float32 alone.
_SAME = 1e-5


def make_smaller(work: Work, *, unpruned: str, engine: Engine) -> None:
    """model.keras, history.json and prune.json: channels or blocks removed and the rest trained on, in as many steps as
    asked for.

    unpruned: the name of the model in the artifact of the stage "unpruned".
    """
    prune = work.context.recipe.prune
    whole = work.file("unpruned", unpruned)
    path, done = whole, list[PruneStep]()
    for number in range(1, prune.steps + 1):
        folder = work.folder / f"step{number}"
        done.append(prune_step(work, folder, model=path, unpruned=whole, number=number))
        path = _tuned(work, folder / "pruned.keras", whole, folder / "tuned", engine=engine, keeps_form=False)
    first, last = done[0].plan, done[-1].plan
    layers = _blocks(last) if prune.method == "blocks" else _groups([step.plan for step in done])
    story = _story(
        work,
        opened(whole, work.context),
        opened(work.folder / "step1" / "pruned.keras", work.context),
        opened(path, work.context),
        layers=layers,
        left_whole=first["untouched"],
    )
    has_criterion = prune.method == "channels"
    _finish(
        work,
        replace(
            story,
            criterion=prune.criterion if has_criterion else "",
            scope=prune.scope if has_criterion else "",
            reached=done[-1].reached,
        ),
        models=[work.folder / f"step{number}" / "tuned" for number in range(1, prune.steps + 1)],
        plans=[step.plan for step in done],
    )


def _groups(plans: Sequence[Mapping[str, Any]]) -> list[PrunedLayer]:
    """What became of the channels by plans of emb.prune.channels, one after the other.

    A later plan says nothing of a layer that an earlier one has taken out.
    """
    kept = {group["name"]: len(group["channels_kept"]) for plan in plans for group in plan["groups"]}
    return [
        PrunedLayer(
            name=group["name"],
            before=group["channels_before"],
            after=kept[group["name"]],
            layers=tuple(group["layers"]),
        )
        for group in plans[0]["groups"]
    ]


def _blocks(plan: Mapping[str, Any]) -> list[PrunedLayer]:
    """What became of the residual branches in a plan of emb.prune.blocks."""
    return [
        PrunedLayer(name=block["name"], before=block["macs"], after=0 if block["is_gone"] else block["macs"])
        for block in plan["blocks"]
    ]


def prune_weights(work: Work, *, unpruned: str, engine: Engine) -> None:
    """model.keras, history.json and prune.json: weights set to 0 or shared, while the model is trained on."""
    prune = work.context.recipe.prune
    whole = work.file("unpruned", unpruned)
    model = opened(whole, work.context)
    form = form_of(model, prune)
    pruned = opened(whole, work.context)
    _give_form(pruned, form)
    folder = work.folder / "tuned"
    if prune.epochs:
        path = _tuned(work, whole, whole, folder, engine=engine, keeps_form=True)
    else:
        folder.mkdir(exist_ok=True)
        pruned.save(folder / MODEL)
        write_json(folder / HISTORY, {"epochs": [], "kept_epoch": 0})
        path = folder / MODEL
    tuned = opened(path, work.context)
    layers = []
    for kernel in form.layers:
        before, after = (np.array(one.variables[kernel.place]) for one in (model, tuned))
        count = _different if prune.method == "cluster" else np.count_nonzero
        layers.append(
            PrunedLayer(name=kernel.layer, before=int(count(before)), after=int(count(after)), layers=(kernel.layer,))
        )
    story = _story(work, model, pruned, tuned, layers=layers, left_whole=form.left_whole)
    scope = prune.scope if prune.target.kind == "sparsity" else ""
    _finish(work, replace(story, scope=scope), models=[folder], plans=[])


def compare(work: Work, *, unpruned: str, scheme: Scheme) -> None:
    """unpruned.json: what the model was before, over the test split, and what it costs as a .tflite in `scheme`."""
    from emb.bench import top1
    from emb.export.source import open_source
    from emb.runtimes import open_runtime

    test = work.context.dataset.test
    path = work.file("unpruned", unpruned)
    of_float = top1(answers_of(path, work)(test.images), test.labels)
    with tempfile.TemporaryDirectory(prefix="emb-unpruned-") as folder:
        file = Path(folder) / "model.tflite"
        pixels = converted(open_source(path, trust=work.context.trust_model), file, work, scheme=scheme)
        with open_runtime("litert", model=file) as process:
            of_file = top1(process.scores(test.images, pixels=pixels), test.labels)
        content = file.read_bytes()
        told = Unpruned(
            scheme=scheme.name,
            reference_accuracy=of_float.correct / of_float.total,
            accuracy=of_file.correct / of_file.total,
            bytes=len(content),
            gzip_bytes=len(gzip.compress(content, compresslevel=9, mtime=0)),
            median_us=median_us(file, work, pixels=pixels),
        )
    write_json(work.folder / "unpruned.json", asdict(told))


def _tuned(work: Work, student: Path, teacher: Path, folder: Path, *, engine: Engine, keeps_form: bool) -> Path:
    """The student after its fine-tuning, in `folder`; what was done already is not done again."""
    prune = work.context.recipe.prune
    folder.mkdir(exist_ok=True)
    lesson = Lesson(
        student=student, teacher=teacher if prune.distill else None, folder=folder.absolute(), keeps_form=keeps_form
    )
    if lesson.is_done:
        return folder / MODEL
    if engine.backend == "tensorflow" or not prune.epochs:
        fine_tune(lesson, work.context)
    else:
        fine_tune_in_own_process(lesson, work.context, engine=engine)
    return folder / MODEL


def _give_form(model: keras.Model, form: Any) -> None:
    """Prune at once what fine-tuning prunes little by little."""
    weights = {place: np.array(model.variables[place]) for place in form.places}
    for place, state in form.states(weights, step=0, steps=1).items():
        variable = model.variables[place]
        variable.assign(form.projected(variable, state, place=place))


def _story(
    work: Work,
    unpruned: keras.Model,
    pruned: keras.Model,
    tuned: keras.Model,
    *,
    layers: list[PrunedLayer],
    left_whole: Mapping[str, str],
) -> Pruning:
    """What happened, but for what only one method knows. pruned: right after the first pruning."""
    from emb.graph.cost import cost
    from emb.graph.keras import read
    from emb.train.validate import accuracy

    prune, validation = work.context.recipe.prune, work.context.dataset.validation
    before, after = cost(read(unpruned)), cost(read(tuned))
    accuracies = [
        accuracy(model, validation, pixels=pixels_of(work.context.recipe)) for model in (unpruned, pruned, tuned)
    ]
    return Pruning(
        method=prune.method,
        goal=str(prune.target),
        criterion="",
        scope="",
        steps=prune.steps,
        epochs=prune.steps * prune.epochs,
        distilled=prune.distill,
        reached="",
        macs_before=before.macs,
        macs_after=after.macs,
        parameters_before=before.parameters,
        parameters_after=after.parameters,
        unpruned_accuracy=accuracies[0],
        pruned_accuracy=accuracies[1],
        tuned_accuracy=accuracies[2],
        layers=tuple(layers),
        left_whole=left_whole,
    )


def _finish(work: Work, story: Pruning, *, models: list[Path], plans: list[Any]) -> None:
    """Leave what the stage promises in its folder, and nothing else. models: folders of the fine-tunings, in order."""
    epochs = [epoch for folder in models for epoch in read_json(folder / HISTORY)["epochs"]]
    shutil.copyfile(models[-1] / MODEL, work.folder / MODEL)
    write_json(work.folder / HISTORY, {"epochs": epochs, "kept_epoch": len(epochs)})
    write_json(work.folder / PLAN, {**story.to_json(), "plans": plans})
    if "notes.json" in work.done["unpruned"].files:
        shutil.copyfile(work.file("unpruned", "notes.json"), work.folder / "notes.json")
    for folder in [path for path in work.folder.iterdir() if path.is_dir()]:
        shutil.rmtree(folder)


def _different(kernel: Any) -> int:
    """How many different ratios to the largest weight of its output channel a kernel has, but for rounding."""
    largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)), keepdims=True)
    ratios = np.unique(kernel / np.where(largest == 0, 1, largest))
    return 1 + int(np.count_nonzero(np.diff(ratios) > _SAME))
