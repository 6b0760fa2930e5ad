"""Learning from another network: the loss between its softened scores and the student's. Knows no training loop.

Imports Keras where it computes: naming a teacher imports nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import ModelError

if TYPE_CHECKING:
    import keras

# A softmax in float32 gives 0 below 1e-38; what Keras's own cross-entropy cuts off.
_LEAST_PROBABILITY = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """model: gives probabilities for the same images; it is not trained.

    temperature: above 0, what the logits of both are divided by.  weight: in (0, 1], of the teacher's word in the loss;
    the labels have the rest.
    """

    model: keras.Model
    temperature: float
    weight: float

    @property
    def decisions(self) -> str:
        """All that it decides of a training, weights included, as text."""
        digest = hashlib.sha256(self.model.to_json().encode())
        for variable in self.model.variables:
            digest.update(np.ascontiguousarray(np.array(variable)).tobytes())
        return f"teacher {digest.hexdigest()} {self.temperature!r} {self.weight!r}"

    def check(self, student: keras.Model) -> None:
        """Raises ModelError unless teacher and student take the same images and know the same classes."""
        for what, own, other in (
            ("input", self.model.input_shape, student.input_shape),
            ("output", tuple(self.model.outputs[0].shape), tuple(student.outputs[0].shape)),
        ):
            if own[1:] != other[1:]:
                raise ModelError(
                    f"the teacher's {what} has shape {own[1:]}, the student's {other[1:]}",
                    fix="let the student learn from a model of the same images and classes",
                )

    def loss(self, images: Any, student: Any, *, of_labels: Any) -> Any:
        """The whole loss, a scalar. images: a batch as the models take it.  student: (batch, classes) probabilities."""
        taught = distillation_loss(self.model(images, training=False), student, temperature=self.temperature)
        return self.weight * taught + (1 - self.weight) * of_labels


def distillation_loss(teacher: Any, student: Any, *, temperature: float) -> Any:
    """temperature ** 2 * KL(teacher || student), the mean over a batch, of both at a temperature.

    teacher, student: (batch, classes) probabilities. Their logarithms are logits but for a constant, so that a softmax
    of log(p) / temperature softens them as it would the logits. The factor keeps the gradient's size when the
    temperature changes. No gradient flows into the teacher.
    Source: Hinton et al. 2015, sections 2 and 2.1.
    """
    from keras import ops

    soft = ops.stop_gradient(_log_softened(teacher, temperature))
    divergence = ops.sum(ops.exp(soft) * (soft - _log_softened(student, temperature)), axis=-1)
    return temperature**2 * ops.mean(divergence)


def _log_softened(probabilities: Any, temperature: float) -> Any:
    from keras import ops

    logits = ops.log(ops.maximum(ops.cast(probabilities, "float32"), _LEAST_PROBABILITY))
    return ops.log_softmax(logits / temperature, axis=-1)
