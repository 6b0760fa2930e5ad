"""The training: one seed, one sequence of weights, resumable after every epoch. Knows no data set and no builder.

It uses keras and keras.ops alone and runs on TensorFlow and JAX. It never sees a test image.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import SpecError
from emb.spec.contract import Pixels
from emb.spec.dataset import Split
from emb.spec.recipe import TrainSpec
from emb.train import checkpoint
from emb.train.batches import Batches
from emb.train.checkpoint import Checkpoint
from emb.train.constraint import Constraint
from emb.train.distillation import Teacher
from emb.train.gradients import GradientNorms
from emb.train.heads import frozen_but_head
from emb.train.history import Epoch, History
from emb.train.normalization import fused_normalization
from emb.train.precision import assign, in_precision
from emb.train.progress import Progress, Reporter
from emb.train.schedules import best_epoch, is_over, learning_rate
from emb.train.validate import accuracy, check_data, check_model

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

    from emb.train.trainer import Trainer

_RAW = Pixels()
_SAMPLED_IMAGES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a training left besides the weights. gradients: None unless they were asked for."""

    history: History
    gradients: GradientNorms | None = None


def train(
    model: keras.Model,
    *,
    train: Split,
    validation: Split,
    spec: TrainSpec,
    directory: Path,
    progress: Callable[[Progress], None],
    pixels: Pixels = _RAW,
    gradients: bool = False,
    teacher: Teacher | None = None,
    constraint: Constraint | None = None,
) -> Trained:
    """Train `model` in place; it is not compiled afterwards, and its weights are float32 whatever spec.precision is.

    model: from (batch, height, width, channels) to (batch, classes) probabilities, e.g. of emb.zoo. Outputs after
    the first are auxiliary: they are trained too, with less weight, and never validated.
    pixels: what the model's first layer expects, for a model that does not take raw pixels.
    directory: gets a checkpoint after every epoch, and is looked into for one; a training that was killed
    continues after its last finished epoch and ends with the weights of an uninterrupted one. The checkpoint is
    used only if model, images, labels and spec are the same. It stays when the training is done.
    progress: called in this thread, at most ten times a second and at the end of every epoch.
    gradients: also return the norm of each variable's gradient in each step; this costs a little speed.
    teacher: what the model learns from beside the labels.  constraint: a form that weights have after every step, and
    their means as well.

    The last epoch is kept, not the best one, unless spec.early_stopping_epochs says so: with a learning rate that
    falls to 0 the last one is the converged one, and choosing the best of many by the validation images would
    overstate what those images say.
    Each epoch sees the images in a new order; the images beyond the last full batch are left out of that epoch.
    One seed gives one sequence of weights, to the bit, on one machine with one Keras backend (TensorFlow:
    with TF_DETERMINISTIC_OPS=1 in the environment and the same number of threads).

    Raises ModelError if the model does not fit the images or labels, DataError for an empty split, SpecError if
    the loss is no longer a finite number, StoreError if `directory` cannot be written.
    """
    check_data(train, validation)
    check_model(model, train=train, validation=validation, pixels=pixels)
    names = tuple(_name(variable, model) for variable in model.trainable_variables) if gradients else ()
    if teacher is not None:
        teacher.check(model)
    given = tuple(one.decisions for one in (teacher, constraint) if one is not None)
    decisions = (repr(spec), repr(pixels), repr(gradients), *given)
    fingerprint = _fingerprint(model, train=train, validation=validation, decisions=decisions)
    state = checkpoint.read(directory, fingerprint=fingerprint)
    if state is None:
        state = Checkpoint(fingerprint=fingerprint, norms=np.zeros((0, len(names)), np.float32))
    if spec.epochs:
        twin = in_precision(model, spec.precision)
        batches = Batches(split=train, classes=model.outputs[0].shape[-1], spec=spec, pixels=pixels)
        reporter = Reporter(listener=progress, epochs=spec.epochs, steps=batches.steps, first_epoch=len(state.epochs))
        run = _Run(
            model=twin,
            batches=batches,
            validation=validation,
            directory=directory,
            reporter=reporter,
            gradients=gradients,
            teacher=teacher and replace(teacher, model=in_precision(teacher.model, spec.precision)),
            constraint=constraint,
        )
        with fused_normalization(twin):
            state = run.go_on(state)
        assign(model.variables, state.kept or state.variables)
    return Trained(
        history=History(epochs=state.epochs, kept_epoch=_kept_epoch(spec, state.epochs)),
        gradients=GradientNorms(names=names, norms=state.norms) if gradients else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A training as functions from one checkpoint to the next. model: in the precision of the training."""

    model: keras.Model
    batches: Batches
    validation: Split
    directory: Path
    reporter: Reporter
    gradients: bool
    teacher: Teacher | None
    constraint: Constraint | None

    @property
    def spec(self) -> TrainSpec:
        return self.batches.spec

    def go_on(self, state: Checkpoint) -> Checkpoint:
        """The state at the training's end."""
        if state.epochs:
            assign(self.model.variables, state.variables)
        trainable = tuple(self.model.trainable_variables)
        frozen_epochs = min(self.spec.freeze_epochs, self.spec.epochs)
        if len(state.epochs) < frozen_epochs:
            with frozen_but_head(self.model):
                state = self._phase(state, first=0, end=frozen_epochs, trainable=trainable)
        return self._phase(state, first=frozen_epochs, end=self.spec.epochs, trainable=trainable)

    def _phase(self, state: Checkpoint, *, first: int, end: int, trainable: tuple[Any, ...]) -> Checkpoint:
        """Epochs with one optimizer: from `first` or where the state is, to before `end`."""
        from emb.train.trainer import start_trainer

        if len(state.epochs) >= end or is_over(self.spec, _accuracies(state.epochs)):
            return state
        trainer = start_trainer(
            self.model, self.spec, gradients=self.gradients, teacher=self.teacher, constraint=self.constraint
        )
        columns = [
            index
            for variable in trainer.trainable_variables
            for index, other in enumerate(trainable)
            if variable is other
        ]
        if len(state.epochs) > first:
            assign(trainer.optimizer.variables, state.optimizer)
        while len(state.epochs) < end and not is_over(self.spec, _accuracies(state.epochs)):
            state = self._epoch(trainer, state, columns=columns)
            checkpoint.write(state, self.directory)
        return state

    def _epoch(self, trainer: Trainer, state: Checkpoint, *, columns: list[int]) -> Checkpoint:
        """One epoch more. Seed, epoch and the state alone decide it, so that a resumed training repeats nothing."""
        began = time.monotonic()
        loss, train_accuracy, rate, norms = self._steps(trainer, state)
        variables = _copies(self.model.variables)
        if trainer.averages is not None:
            trainer.averages.replace_sources()
        epoch = Epoch(
            loss=loss,
            accuracy=train_accuracy,
            validation_accuracy=accuracy(trainer, self.validation, pixels=self.batches.pixels),
            learning_rate=rate,
            seconds=time.monotonic() - began,
        )
        epochs = (*state.epochs, epoch)
        kept: tuple[NDArray[Any], ...] = ()
        if trainer.averages is not None or self.spec.early_stopping_epochs:
            best = _kept_epoch(self.spec, epochs) == len(epochs)
            kept = _copies(self.model.variables) if best else state.kept
        if trainer.averages is not None:
            assign(self.model.variables, variables)
        self.reporter.epoch_done(epoch=len(state.epochs), result=epoch)
        rows = np.full((len(norms), state.norms.shape[1]), np.nan, np.float32)
        if norms:
            rows[:, columns] = norms
        return Checkpoint(
            fingerprint=state.fingerprint,
            epochs=epochs,
            variables=variables,
            optimizer=_copies(trainer.optimizer.variables),
            kept=kept,
            norms=np.concatenate([state.norms, rows]),
        )

    def _steps(self, trainer: Trainer, state: Checkpoint) -> tuple[float, float, float, list[NDArray[np.float32]]]:
        """Mean loss and accuracy, last learning rate and gradient norms of an epoch's steps."""
        from emb.train.trainer import steps

        epoch, accuracies = len(state.epochs), _accuracies(state.epochs)
        norms = []
        last: tuple[int, float, Mapping[str, Any]] | None = None
        with steps(trainer) as session, closing(self.batches.epoch(epoch)) as batches:
            for step, (images, targets) in enumerate(batches):
                number = epoch * self.batches.steps + step
                rate = learning_rate(self.spec, number, steps_per_epoch=self.batches.steps, accuracies=accuracies)
                if trainer.form is not None:
                    trainer.form.renew(session, step=number, steps=self.spec.epochs * self.batches.steps)
                logs = session.take(images, targets, rate=rate)
                if self.gradients:
                    norms.append(session.norms())
                # The step before is looked at while the device works on this one.
                if last is not None:
                    self._look_at(*last, epoch=epoch)
                last = step, rate, logs
            assert last is not None, "an epoch has at least one step"
            loss, train_accuracy = self._look_at(*last, epoch=epoch)
        return loss, train_accuracy, last[1], norms

    def _look_at(self, step: int, rate: float, logs: Mapping[str, Any], *, epoch: int) -> tuple[float, float]:
        """Loss and accuracy, the mean over the epoch's steps until this one. Raises SpecError if the loss is lost."""
        from emb.train.trainer import numbers

        loss, train_accuracy = numbers(logs)
        if not math.isfinite(loss):
            raise SpecError(
                f"the training diverged: the loss is {loss} in epoch {epoch + 1}, step {step + 1}",
                why=f"the learning rate of {rate:.3g} is too high for this model and these images",
                fix=f"lower it, e.g. --set train.learning_rate={rate / 10:.1g}, or set train.warmup_epochs",
            )
        self.reporter.step_done(epoch=epoch, step=step, loss=loss, accuracy=train_accuracy, learning_rate=rate)
        return loss, train_accuracy


def _accuracies(epochs: tuple[Epoch, ...]) -> tuple[float, ...]:
    return tuple(epoch.validation_accuracy for epoch in epochs)


def _kept_epoch(spec: TrainSpec, epochs: tuple[Epoch, ...]) -> int:
    """1-based; 0 without epochs."""
    if spec.early_stopping_epochs and epochs:
        return best_epoch(_accuracies(epochs)) + 1
    return len(epochs)


def _name(variable: Any, model: keras.Model) -> str:
    """layer/variable; some models put their own name in front."""
    path: str = variable.path
    return path.removeprefix(f"{model.name}/")


def _copies(variables: list[Any]) -> tuple[NDArray[Any], ...]:
    """Of model variables: all that a step changes, random seeds of dropout layers included."""
    import keras

    return tuple(np.array(keras.ops.convert_to_numpy(variable)) for variable in variables)


def _fingerprint(model: keras.Model, *, train: Split, validation: Split, decisions: tuple[str, ...]) -> str:
    """sha256 (hex) of all that decides the training: model and its weights now, data, spec, backend."""
    import keras

    digest = hashlib.sha256()
    for part in (keras.__version__, keras.backend.backend(), model.to_json(), *decisions):
        digest.update(f"{len(part)}:{part}".encode())
    arrays = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    for split in (train, validation):
        digest.update(str(split.images.shape).encode())
        arrays += [split.labels, _sample(split.images)]
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _sample(images: Any) -> NDArray[np.uint8]:
    """All images that are in memory, or a few of those that are not, whose reading would take minutes."""
    if isinstance(images, np.ndarray):
        return images
    chosen: NDArray[np.uint8] = images[np.linspace(0, len(images) - 1, _SAMPLED_IMAGES).astype(np.int64)]
    return chosen
