"""An optimizer that changes no weight and adds up the gradients. Imports keras: to be imported where it is needed.

Keras hands every backend's gradients to its optimizer, so that none of them has to be named here.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


class GradientSums(keras.optimizers.Optimizer):
    """Sums of the absolute gradients over all axes of a variable but the last, and over all steps."""

    def __init__(self) -> None:
        super().__init__(learning_rate=0.0)
        self.sums: list[Any] = []

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self.sums = [
            self.add_variable(shape=variable.shape[-1:], dtype="float32", name="sum") for variable in variables
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's gradient; the variable stays what it is."""
        size = ops.abs(ops.cast(gradient, "float32"))
        total = self.sums[self._get_variable_index(variable)]
        total.assign_add(ops.sum(size, axis=tuple(range(len(size.shape) - 1))))

    def by_variable(self) -> dict[int, NDArray[np.float64]]:
        """id of the variable -> (extent of its last axis,) sums."""
        pairs = zip(self._trainable_variables, self.sums, strict=True)
        return {id(variable): np.array(ops.convert_to_numpy(total), dtype=np.float64) for variable, total in pairs}
