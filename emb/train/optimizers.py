"""Optimizers as the papers define them, for any Keras backend. Imports keras: to be imported where one is made."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from emb.spec.recipe import TrainSpec

_NOT_DECAYED = ("bias", "gamma", "beta")


class L2SGD(keras.optimizers.SGD):
    """SGD whose weight decay is L2 regularisation: l2 * weight is added to the gradient, before the momentum.

    This is the rule of AlexNet, VGG, GoogLeNet, ResNet and DenseNet (Krizhevsky et al. 2012, section 5). Keras's own
    `weight_decay` is decoupled (SGDW): it shrinks the weight by learning_rate * decay past the momentum.
    """

    def __init__(self, *, l2: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.l2 = l2

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's step; see keras.optimizers.SGD."""
        if self.l2 and self._use_weight_decay(variable):
            gradient = ops.add(ops.cast(gradient, variable.dtype), ops.multiply(variable, self.l2))
        super().update_step(gradient, variable, learning_rate)


class _Recording:
    """Keeps the 2-norm of every variable's gradient of the last step in the variable `norms`, (variables,) float32.

    The norm is that of the loss's own gradient: before weight decay and momentum, after loss scaling was undone.
    NaN for a variable without a gradient. In a step that loss scaling skips, the norms stay as they were.
    """

    norms: Any = None

    def build(self, variables: Any) -> None:
        super().build(variables)  # type: ignore[misc]
        if self.norms is None:
            self.norms = self.add_variable(shape=(len(variables),), dtype="float32", name="gradient_norms")  # type: ignore[attr-defined]

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        norms = [
            ops.convert_to_tensor(float("nan"), "float32")
            if gradient is None
            else ops.sqrt(ops.sum(ops.square(ops.cast(gradient, "float32"))))
            for gradient in grads
        ]
        self.norms.assign(ops.stack(norms))
        super().apply(grads, trainable_variables)  # type: ignore[misc]


class RecordingSGD(_Recording, L2SGD):
    pass


class RecordingAdam(_Recording, keras.optimizers.Adam):
    pass


def make_optimizer(spec: TrainSpec, *, gradients: bool) -> keras.optimizers.Optimizer:
    """The recipe's optimizer; biases and normalisation are not decayed, as their size is no complexity.

    gradients: let it keep the norms of the gradients, see norms_of.
    """
    if spec.optimizer == "sgd":
        kind = RecordingSGD if gradients else L2SGD
        optimizer = kind(
            l2=spec.weight_decay, learning_rate=spec.learning_rate, momentum=spec.momentum, nesterov=spec.nesterov
        )
    else:
        kind = RecordingAdam if gradients else keras.optimizers.Adam
        optimizer = kind(learning_rate=spec.learning_rate, weight_decay=spec.weight_decay or None)
    optimizer.exclude_from_weight_decay(var_names=list(_NOT_DECAYED))
    if spec.precision == "mixed_float16":
        # Gradients below 6e-8 would vanish in float16. Source: Micikevicius et al. 2018, section 3.2.
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer itself, without loss scaling around it."""
    return getattr(optimizer, "inner_optimizer", optimizer)
