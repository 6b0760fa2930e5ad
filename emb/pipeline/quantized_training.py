"""Quantization-aware training as a stage: the plain model with its rounding in place, trained on by emb.train.

Decides neither order nor names. Trains on TensorFlow, whatever trained the model before.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.pipeline.json_files import write_json
from emb.pipeline.pixels import PIXELS
from emb.pipeline.quantized_models import Candidate, calibration_of, open_plain, write_candidate
from emb.pipeline.stage import Work
from emb.spec.recipe import Recipe, TrainSpec

if TYPE_CHECKING:
    import keras

QAT_FILE = "qat.json"


def train_quantized(work: Work, *, source: str, model: str, bits: int) -> None:
    """model.keras and ranges.json of the model trained on; qat.json: validation accuracies, before and after.

    source: the stage that made the model.  bits: of the weights.
    """
    from emb.quantize.remedies.simulation import ranges_of

    images = calibration_of(work)
    plain = open_plain(work, source=source, model=model)
    ranges = ranges_of(plain, images, method=work.context.recipe.quantize.calibration_method)
    candidate = Candidate(model=plain, floats=plain, ranges=ranges)
    trained, before, after = trained_on(candidate, work, bits=bits, directory=work.folder / "progress")
    write_candidate(work.folder, trained, images)
    write_json(work.folder / QAT_FILE, {"before": before, "after": after})
    shutil.rmtree(work.folder / "progress", ignore_errors=True)


def trained_on(candidate: Candidate, work: Work, *, bits: int, directory: Path) -> tuple[Candidate, float, float]:
    """(the candidate trained on with its ranges as they are, simulated validation accuracy before, after), in [0, 1].

    The candidate itself where no epoch was better than none. bits: of the weights.  directory: for checkpoints.
    """
    from emb.quantize.remedies.simulation import give_back, simulated
    from emb.quantize.remedies.walk import copied
    from emb.train import accuracy
    from emb.train import train as fit

    dataset, recipe = work.context.dataset, work.context.recipe
    pixels = PIXELS[recipe.input.pixels]
    twin = _with_probabilities(simulated(candidate.model, candidate.ranges, bits=bits))
    before = accuracy(twin, dataset.validation, pixels=pixels)
    trained = fit(
        twin,
        train=dataset.train,
        validation=dataset.validation,
        spec=spec_of(recipe),
        directory=directory,
        progress=work.context.listener.training,
        pixels=pixels,
    )
    after = trained.history.epochs[trained.history.kept_epoch - 1].validation_accuracy
    if after <= before:
        return candidate, before, before
    model = copied(candidate.model)
    give_back(twin, model)
    return replace(candidate, model=model, floats=model), before, after


def spec_of(recipe: Recipe) -> TrainSpec:
    """How the recipe's model is trained on: gently, from where the training ended, keeping the best epoch.

    Without augmentation: in a few epochs the weights settle on their grids, on images as they are; what random changes
    of the images teach, the training before has learned.
    """
    epochs = recipe.qat.epochs
    return TrainSpec(
        optimizer="adam",
        learning_rate=recipe.qat.learning_rate,
        schedule="cosine",
        epochs=epochs,
        early_stopping_epochs=epochs,
        batch_size=recipe.train.batch_size,
        label_smoothing=recipe.train.label_smoothing,
        seed=recipe.train.seed,
    )


def _with_probabilities(twin: keras.Model) -> Any:
    """The twin with a softmax behind its scores, if it has none."""
    import keras

    last = twin.outputs[0]._keras_history.operation
    if getattr(last, "activation", None) is keras.activations.softmax or isinstance(last, keras.layers.Softmax):
        return twin
    return keras.Model(twin.inputs[0], keras.layers.Softmax()(twin.outputs[0]), name=twin.name)
