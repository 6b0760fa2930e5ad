"""Trains a pruned model on, in the form that its weights must keep, perhaps with a teacher. Prunes nothing.

It runs in this process, or in one of its own where the engine is another Keras backend (training_process).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.errors import ModelError
from emb.pipeline.json_files import replace_json
from emb.pipeline.pixels import PIXELS
from emb.pipeline.stage import Context
from emb.spec.contract import Pixels
from emb.spec.recipe import PruneSpec, Recipe, TrainSpec

if TYPE_CHECKING:
    import keras

    from emb.prune.cluster import Shared
    from emb.prune.magnitude import Zeros

MODEL, HISTORY = "model.keras", "history.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One fine-tuning. student, teacher: files of Keras models; no teacher if None.

    folder: gets model.keras and history.json, the history last.
    keeps_form: let the weights keep the zeros or shared values that the recipe's method gives them.
    """

    student: Path
    teacher: Path | None
    folder: Path
    keeps_form: bool

    @property
    def is_done(self) -> bool:
        return (self.folder / HISTORY).exists()


def fine_tune(lesson: Lesson, context: Context) -> None:
    """Train the student on, resuming what was begun. Raises what emb.train raises."""
    from emb.train import Teacher, train

    prune, dataset = context.recipe.prune, context.dataset
    model = opened(lesson.student, context)
    teacher = None
    if lesson.teacher is not None:
        teacher = Teacher(
            model=_in_inference(opened(lesson.teacher, context)),
            temperature=prune.distill_temperature,
            weight=prune.distill_weight,
        )
    progress = lesson.folder / "progress"
    trained = train(
        model,
        train=dataset.train,
        validation=dataset.validation,
        spec=tuning_spec(context.recipe),
        directory=progress,
        progress=context.listener.training,
        pixels=pixels_of(context.recipe),
        teacher=teacher,
        constraint=form_of(model, prune) if lesson.keeps_form else None,
    )
    model.save(lesson.folder / MODEL)
    replace_json(lesson.folder / HISTORY, trained.history.to_json())
    shutil.rmtree(progress, ignore_errors=True)


def tuning_spec(recipe: Recipe) -> TrainSpec:
    """How a pruned model is trained on: as the recipe trains, but short and without a careful beginning."""
    return replace(
        recipe.train,
        epochs=recipe.prune.epochs,
        learning_rate=recipe.prune.learning_rate or recipe.train.learning_rate,
        schedule="cosine",
        warmup_epochs=0,
        warmup_learning_rate=0.0,
        freeze_epochs=0,
        early_stopping_epochs=0,
    )


def _in_inference(model: keras.Model) -> keras.Model:
    """What answers as the model does but for rounding, with fewer operations where they can be joined."""
    from emb.export.plain import plain

    try:
        return plain(model)
    except ModelError:
        return model


def form_of(model: keras.Model, prune: PruneSpec) -> Zeros | Shared:
    """The form that the recipe's method gives the model's weights. Raises ModelError if they cannot have it."""
    goal = prune.target
    if goal.kind == "clusters":
        from emb.prune.cluster import shared

        return shared(model, count=int(goal.amount))
    from emb.prune.magnitude import zeros

    return zeros(model, goal=goal, scope=prune.scope, ramp_fraction=prune.ramp_fraction)


def pixels_of(recipe: Recipe) -> Pixels:
    """What the model's first layer expects; a builder's takes raw pixels."""
    return PIXELS[recipe.input.pixels] if recipe.model.file else Pixels()


def opened(path: Path, context: Context) -> Any:
    """The Keras model in a file. Raises ModelError if it cannot be loaded."""
    from emb.export.source import open_source

    return open_source(path, trust=context.trust_model).model
