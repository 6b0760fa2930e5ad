"""One training step on TensorFlow or JAX: forward, backward, update, mean of weights. Knows no data and no epochs.

Imports keras: to be imported where a training begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from emb.spec.recipe import TrainSpec
from emb.train.constraint import Constraint, Form
from emb.train.distillation import Teacher
from emb.train.optimizers import inner, make_optimizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Source: Szegedy et al. 2014, section 5.
AUXILIARY_WEIGHT = 0.3


@dataclass(frozen=True, kw_only=True)
class Averages:
    """Exponential means of weights and normalisation statistics over the steps of an optimizer.

    The momentum rises from 2/11 as (1 + step) / (10 + step) up to `momentum`, so that the first weights do not weigh
    on a short training.
    """

    momentum: float
    optimizer: keras.optimizers.Optimizer
    sources: tuple[Any, ...]
    means: tuple[Any, ...]

    @classmethod
    def start(cls, model: keras.Model, optimizer: keras.optimizers.Optimizer, *, momentum: float) -> Averages:
        # The means live in the optimizer, whose variables are the state of a training on every backend.
        inside = inner(optimizer)
        sources = tuple(variable for variable in model.variables if "float" in variable.dtype)
        means = tuple(inside.add_variable(shape=source.shape, dtype=source.dtype, name="mean") for source in sources)
        for mean, source in zip(means, sources, strict=True):
            _copy(source, to=mean)
        return cls(momentum=momentum, optimizer=inside, sources=sources, means=means)

    def mean_of(self, variable: Any) -> Any:
        """The mean of one of the model's variables, None if it has none."""
        return next((mean for mean, source in zip(self.means, self.sources, strict=True) if source is variable), None)

    def update(self) -> None:
        """To be called within a step, after the weights and the optimizer's count of steps have changed."""
        step = ops.cast(self.optimizer.iterations, "float32")
        share = 1 - ops.minimum(self.momentum, (1 + step) / (10 + step))
        for mean, source in zip(self.means, self.sources, strict=True):
            mean.assign(ops.add(mean, ops.multiply(ops.cast(share, mean.dtype), ops.subtract(source, mean))))

    def replace_sources(self) -> None:
        """Put the means where the weights are; the weights are lost."""
        for mean, source in zip(self.means, self.sources, strict=True):
            _copy(mean, to=source)


class Trainer(keras.Model):
    """A functional model that shares its layers with the one that is trained, which so stays uncompiled."""

    averages: Averages | None = None
    form: Form | None = None
    teacher: Teacher | None = None

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of the labels, and with a teacher of what it says of the same images."""
        loss = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        if self.teacher is None:
            return loss
        first = y_pred[0] if isinstance(y_pred, list | tuple) else y_pred
        return self.teacher.loss(x, first, of_labels=loss)

    def train_step(self, *arguments: Any) -> Any:
        """As Keras has it for each backend: (data) -> logs on TensorFlow, (state, data) -> (logs, state) on JAX."""
        result = super().train_step(*arguments)
        if self.averages is None and self.form is None:
            return result
        if keras.backend.backend() == "tensorflow":
            self._end_step()
            return result
        logs, (*values, metrics) = result
        groups = (self.trainable_variables, self.non_trainable_variables, self.optimizer.variables)
        known = [pair for group, own in zip(groups, values, strict=True) for pair in zip(group, own, strict=True)]
        with keras.StatelessScope(state_mapping=known) as scope:
            self._end_step()
        return logs, (*([scope.get_current_value(variable) for variable in group] for group in groups), metrics)

    def _end_step(self) -> None:
        if self.averages is not None:
            self.averages.update()
        if self.form is not None:
            self.form.apply()


def start_trainer(
    model: keras.Model,
    spec: TrainSpec,
    *,
    gradients: bool,
    teacher: Teacher | None = None,
    constraint: Constraint | None = None,
) -> Trainer:
    """A compiled and built trainer of those of the model's layers that are trainable now."""
    trainer = Trainer(model.inputs[0], model.outputs)
    optimizer = make_optimizer(spec, gradients=gradients)
    optimizer.build(trainer.trainable_variables)
    if spec.ema_momentum:
        trainer.averages = Averages.start(trainer, optimizer, momentum=spec.ema_momentum)
    if constraint is not None:
        mean_of = trainer.averages.mean_of if trainer.averages else lambda variable: None
        trainer.form = Form.start(constraint, model.variables, optimizer, mean_of=mean_of)
    trainer.teacher = teacher
    outputs = len(model.outputs)
    trainer.compile(
        optimizer=optimizer,
        loss=[keras.losses.CategoricalCrossentropy(label_smoothing=spec.label_smoothing) for _ in range(outputs)],
        loss_weights=[1.0] + [AUXILIARY_WEIGHT] * (outputs - 1),
        metrics=[["accuracy"]] + [[] for _ in range(outputs - 1)],
        # XLA on a CPU makes TensorFlow's steps of such small models two to three times slower.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    # Keras makes the metrics' variables at their first use, which must not happen inside a traced step.
    nothing = [np.full((1, output.shape[-1]), 1 / output.shape[-1], np.float32) for output in model.outputs]
    x = np.zeros((1, *model.input_shape[1:]), np.float32)
    answer = nothing[0] if outputs == 1 else nothing
    trainer.compute_loss(x, answer, answer)
    trainer.compute_metrics(x, answer, answer)
    trainer.make_train_function()
    return trainer


class TensorFlowSteps:
    """Steps whose state is in the variables themselves."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def take(self, images: Any, targets: Any, *, rate: float) -> Mapping[str, Any]:
        """One step; the means of loss and accuracy over the session's steps, perhaps still being computed."""
        self._trainer.optimizer.learning_rate = rate
        targets = _for_each_output(self._trainer, targets)
        logs: Mapping[str, Any] = self._trainer.train_function(iter([(images, targets)]))
        return logs

    def value(self, variable: Any) -> NDArray[Any]:
        """What a variable of model or optimizer is now."""
        return np.array(ops.convert_to_numpy(variable))

    def put(self, variable: Any, value: NDArray[Any]) -> None:
        """Give a variable of model or optimizer its value for the steps to come."""
        variable.assign(value)

    def norms(self) -> NDArray[np.float32]:
        """The norms of the last step's gradients, in the order of trainable variables."""
        return np.array(ops.convert_to_numpy(inner(self._trainer.optimizer).norms))


class JaxSteps:
    """Steps whose state stays on the device from one to the next; `finish` puts it back into the variables."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._groups = (
            trainer.trainable_variables,
            trainer.non_trainable_variables,
            trainer.optimizer.variables,
            trainer.metrics_variables,
        )
        self._state: Any = tuple([variable.value for variable in group] for group in self._groups)
        self._rate = _index(trainer.optimizer.variables, trainer.optimizer.learning_rate)

    def take(self, images: Any, targets: Any, *, rate: float) -> Mapping[str, Any]:
        """See TensorFlowSteps.take."""
        self._state[2][self._rate] = ops.convert_to_tensor(rate, "float32")
        images, targets = _placed(images), _for_each_output(self._trainer, _placed(targets))
        logs: Mapping[str, Any]
        logs, self._state = self._trainer.train_function(self._state, iter([(images, targets)]))
        return logs

    def value(self, variable: Any) -> NDArray[Any]:
        """See TensorFlowSteps.value."""
        group, index = self._place(variable)
        return np.array(ops.convert_to_numpy(self._state[group][index]))

    def put(self, variable: Any, value: NDArray[Any]) -> None:
        """See TensorFlowSteps.put."""
        group, index = self._place(variable)
        self._state[group][index] = ops.convert_to_tensor(value, variable.dtype)

    def _place(self, wanted: Any) -> tuple[int, int]:
        return next(
            (number, index)
            for number, group in enumerate(self._groups)
            for index, variable in enumerate(group)
            if variable is wanted
        )

    def norms(self) -> NDArray[np.float32]:
        """See TensorFlowSteps.norms."""
        optimizer = self._trainer.optimizer
        return np.array(ops.convert_to_numpy(self._state[2][_index(optimizer.variables, inner(optimizer).norms)]))

    def finish(self) -> None:
        for group, values in zip(self._groups, self._state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)


@contextmanager
def steps(trainer: Trainer) -> Iterator[TensorFlowSteps | JaxSteps]:
    """A session of steps, usually an epoch. Afterwards, whatever happened, the variables hold the last step's state."""
    trainer.reset_metrics()
    if keras.backend.backend() == "tensorflow":
        yield TensorFlowSteps(trainer)
        return
    session = JaxSteps(trainer)
    try:
        yield session
    finally:
        session.finish()


def numbers(logs: Mapping[str, Any]) -> tuple[float, float]:
    """(loss, accuracy) of what a step returned; waits until they are computed."""
    accuracy = next(value for name, value in logs.items() if name.endswith("accuracy"))
    return float(logs["loss"]), float(accuracy)


def _index(variables: list[Any], wanted: Any) -> int:
    return next(index for index, variable in enumerate(variables) if variable is wanted)


def _copy(variable: Any, *, to: Any) -> None:
    """A copy of the value: JAX gives a variable's memory away in every step, which must not be another one's, too."""
    to.assign(np.array(ops.convert_to_numpy(variable)))


def _for_each_output(trainer: Trainer, targets: Any) -> Any:
    outputs = len(trainer.outputs)
    return targets if outputs == 1 else [targets] * outputs


def _placed(array: Any) -> Any:
    """A batch on the devices of the distribution that was set before the model was built, if one was."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return array
    return keras.distribution.distribute_tensor(array, distribution.get_data_layout(array.shape))
