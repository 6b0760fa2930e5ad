"""The training loop: one seed, one sequence of weights, resumable after every epoch. Knows no data set and no builder.

It uses keras and keras.ops alone and so runs on every Keras backend. It never sees a test image.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import DataError, ModelError, SpecError
from emb.spec.contract import Pixels
from emb.spec.dataset import Split
from emb.spec.recipe import TrainSpec
from emb.train import checkpoint
from emb.train.augment import augmented
from emb.train.checkpoint import Checkpoint
from emb.train.history import Epoch, History
from emb.train.progress import Progress, Reporter
from emb.train.schedules import learning_rate

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

_VALIDATION_BATCH = 500
_RAW = Pixels()


def train(
    model: keras.Model,
    *,
    train: Split,
    validation: Split,
    spec: TrainSpec,
    directory: Path,
    progress: Callable[[Progress], None],
    pixels: Pixels = _RAW,
) -> History:
    """Train `model` in place; it holds the weights of the last epoch afterwards, and is not compiled.

    model: from (batch, height, width, channels) to (batch, classes) probabilities, e.g. of emb.zoo.
    pixels: what the model's first layer expects, for a model that does not take raw pixels.
    directory: gets a checkpoint after every epoch, and is looked into for one; a training that was killed
    continues after its last finished epoch and ends with the weights of an uninterrupted one. The checkpoint is
    used only if model, images, labels and spec are the same. It stays when the training is done.
    progress: called in this thread, at most ten times a second and at the end of every epoch.

    The last epoch is kept, not the best one: with a learning rate that falls to 0 the last one is the converged
    one, and choosing the best of many by the validation images would overstate what those images say.
    Each epoch sees the images in a new order; the images beyond the last full batch are left out of that epoch.
    One seed gives one sequence of weights, to the bit, on one machine with one Keras backend (TensorFlow:
    with TF_DETERMINISTIC_OPS=1 in the environment and the same number of threads).

    Raises ModelError if the model does not fit the images or labels, DataError for an empty split, SpecError if
    the loss is no longer a finite number, StoreError if `directory` cannot be written.
    """
    _check_data(train, validation)
    _check_model(model, train=train, validation=validation, pixels=pixels)
    if spec.epochs == 0:
        return History()
    loop = _Loop.start(model, train=train, validation=validation, spec=spec, pixels=pixels)
    state = checkpoint.read(directory, fingerprint=loop.fingerprint)
    epochs: list[Epoch] = []
    if state is not None:
        epochs.extend(state.history.epochs)
        loop.restore(state.variables)
    reporter = Reporter(listener=progress, epochs=spec.epochs, steps=loop.steps, first_epoch=len(epochs))
    while len(epochs) < spec.epochs:
        epochs.append(loop.run_epoch(len(epochs), reporter))
        history = History(epochs=tuple(epochs))
        checkpoint.write(
            Checkpoint(fingerprint=loop.fingerprint, history=history, variables=loop.variables()), directory
        )
    return History(epochs=tuple(epochs))


@dataclass(frozen=True, kw_only=True)
class _Loop:
    """A training that has begun. trainer: shares the model's variables, so that the model stays uncompiled."""

    trainer: keras.Model
    train: Split
    validation: Split
    targets: NDArray[np.float32]
    spec: TrainSpec
    pixels: Pixels
    batch: int
    steps: int
    fingerprint: str

    @classmethod
    def start(cls, model: keras.Model, *, train: Split, validation: Split, spec: TrainSpec, pixels: Pixels) -> _Loop:
        import keras

        batch = min(spec.batch_size, len(train))
        fingerprint = _fingerprint(model, train=train, validation=validation, spec=spec, pixels=pixels)
        trainer = keras.Model(model.inputs, model.outputs)
        optimizer = _optimizer(spec)
        optimizer.build(trainer.trainable_variables)
        trainer.compile(
            optimizer=optimizer,
            loss=keras.losses.CategoricalCrossentropy(label_smoothing=spec.label_smoothing),
            metrics=["accuracy"],
            # XLA on a CPU makes TensorFlow's steps of such small models two to three times slower.
            jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
        )
        classes = trainer.output_shape[-1]
        return cls(
            trainer=trainer,
            train=train,
            validation=validation,
            targets=np.eye(classes, dtype=np.float32)[train.labels],
            spec=spec,
            pixels=pixels,
            batch=batch,
            steps=len(train) // batch,
            fingerprint=fingerprint,
        )

    def variables(self) -> tuple[NDArray[Any], ...]:
        """Copies of all that a step changes, random seeds of dropout layers included."""
        import keras

        return tuple(np.array(keras.ops.convert_to_numpy(variable)) for variable in self._variables())

    def restore(self, values: tuple[NDArray[Any], ...]) -> None:
        for variable, value in zip(self._variables(), values, strict=True):
            variable.assign(value)

    def _variables(self) -> list[Any]:
        return [*self.trainer.variables, *self.trainer.optimizer.variables]

    def run_epoch(self, epoch: int, reporter: Reporter) -> Epoch:
        """epoch: 0-based. Seed and epoch alone decide what is drawn, so that a resumed training draws the same."""
        began = time.monotonic()
        rng = np.random.default_rng((self.spec.seed, epoch))
        loss = accuracy = rate = 0.0
        for step, chosen in enumerate(self._batches(rng)):
            rate = learning_rate(self.spec, epoch * self.steps + step, steps_per_epoch=self.steps)
            step_loss, step_accuracy = self._take_step(chosen, rng=rng, rate=rate)
            _check_finite(step_loss, epoch=epoch, step=step, rate=rate)
            # Running means over the epoch's steps.
            loss += (step_loss - loss) / (step + 1)
            accuracy += (step_accuracy - accuracy) / (step + 1)
            reporter.step_done(epoch=epoch, step=step, loss=loss, accuracy=accuracy)
        validated = _accuracy(self.trainer, self.validation, pixels=self.pixels)
        reporter.epoch_done(epoch=epoch, loss=loss, accuracy=accuracy, validation_accuracy=validated)
        return Epoch(
            loss=loss,
            accuracy=accuracy,
            validation_accuracy=validated,
            learning_rate=rate,
            seconds=time.monotonic() - began,
        )

    def _take_step(self, chosen: NDArray[np.int64], *, rng: np.random.Generator, rate: float) -> tuple[float, float]:
        """Loss and accuracy of the chosen train images, augmented, just before the step that they cause."""
        self.trainer.optimizer.learning_rate = rate
        images = augmented(self.train.images[chosen], rng=rng, augmentation=self.spec.augment)
        images = _as_expected(images, self.pixels)
        logs = self.trainer.train_on_batch(images, self.targets[chosen], return_dict=True)
        return float(logs["loss"]), float(logs["accuracy"])

    def _batches(self, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        order = rng.permutation(len(self.train))
        for step in range(self.steps):
            yield order[step * self.batch : (step + 1) * self.batch]


def _optimizer(spec: TrainSpec) -> keras.optimizers.Optimizer:
    """The recipe's optimizer; biases and normalisation are not decayed, as their size is no complexity."""
    import keras

    decay = spec.weight_decay or None
    if spec.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            spec.learning_rate, momentum=spec.momentum, nesterov=spec.momentum > 0, weight_decay=decay
        )
    else:
        optimizer = keras.optimizers.Adam(spec.learning_rate, weight_decay=decay)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _as_expected(images: Any, pixels: Pixels) -> Any:
    if pixels == _RAW:
        return images
    return images * np.float32(pixels.scale) + np.float32(pixels.offset)


def _accuracy(model: keras.Model, split: Split, *, pixels: Pixels) -> float:
    """Share of the split's images whose highest score is that of their label."""
    return float(np.mean(np.argmax(_predict(model, split.images, pixels=pixels), axis=1) == split.labels))


def _predict(model: keras.Model, images: NDArray[np.uint8], *, pixels: Pixels) -> NDArray[np.float32]:
    """(n, classes) scores, in batches of one size, because every other size would be compiled anew."""
    size = min(_VALIDATION_BATCH, len(images))
    scores = []
    for begin in range(0, len(images), size):
        batch = images[begin : begin + size]
        padded = np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0), (0, 0)))
        expected = _as_expected(padded.astype(np.float32), pixels)
        scores.append(np.asarray(model.predict_on_batch(expected))[: len(batch)])
    return np.concatenate(scores)


def _fingerprint(model: keras.Model, *, train: Split, validation: Split, spec: TrainSpec, pixels: Pixels) -> str:
    """sha256 (hex) of all that decides the training: model and its weights now, data, spec, backend."""
    import keras

    digest = hashlib.sha256()
    for part in (keras.__version__, keras.backend.backend(), model.to_json(), repr(spec), repr(pixels)):
        digest.update(f"{len(part)}:{part}".encode())
    arrays = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    for array in (*arrays, train.images, train.labels, validation.images, validation.labels):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check_data(train: Split, validation: Split) -> None:
    for name, split in (("train", train), ("validation", validation)):
        if not len(split):
            raise DataError(
                f"the {name} split is empty",
                fix="give more images, or another data.validation_fraction",
            )


def _check_model(model: keras.Model, *, train: Split, validation: Split, pixels: Pixels) -> None:
    """Raises ModelError unless the model turns the images into one probability for each class that occurs."""
    shape = tuple(train.images.shape[1:])
    wanted = tuple(model.input_shape[1:])
    if len(wanted) != 3 or any(side not in (None, given) for side, given in zip(wanted, shape, strict=True)):
        raise ModelError(
            f"the model takes inputs of shape {wanted}; the images have {shape}",
            fix="set input.shape to the model's height, width and channels",
        )
    classes = int(max(train.labels.max(), validation.labels.max())) + 1
    outputs = tuple(model.output_shape[1:])
    if len(outputs) != 1 or outputs[0] < classes:
        raise ModelError(
            f"the model's output has shape {outputs}; the labels need {classes} classes",
            fix="give the model whose classes are those of the data set",
        )
    scores = _predict(model, validation.images[:1], pixels=pixels)
    if scores.min() < 0 or not np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        raise ModelError(
            "the model's output is not a probability for each class",
            why=f"the scores of an image sum to {float(scores.sum()):.3g}, not to 1",
            fix="let the model end in a softmax",
        )


def _check_finite(loss: float, *, epoch: int, step: int, rate: float) -> None:
    if not math.isfinite(loss):
        raise SpecError(
            f"the training diverged: the loss is {loss} in epoch {epoch + 1}, step {step + 1}",
            why=f"the learning rate of {rate:.3g} is too high for this model and these images",
            fix=f"lower it, e.g. --set train.learning_rate={rate / 10:.1g}, or set train.warmup_epochs",
        )
