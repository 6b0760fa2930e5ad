"""Keeps a model's weights in a form while they are trained: some of them at 0, or few different ones. Knows no form.

What a form is comes from outside, as a Constraint. Its state lives in the optimizer, whose variables are the state of
a training on every backend, so that a resumed training goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

    from emb.train.trainer import JaxSteps, TensorFlowSteps

Arrays = Mapping[int, "NDArray[Any]"]


class Constraint(Protocol):
    """A form of some of a model's variables, which are known by their place in `model.variables`.

    decisions: all that decides the form, as text; a checkpoint of another form is not used.
    places: of the variables.
    """

    @property
    def decisions(self) -> str: ...
    @property
    def places(self) -> tuple[int, ...]: ...

    def is_due(self, step: int, *, steps: int) -> bool:
        """Whether the form changes before this step of so many; step: from 0. It must be so before step 0."""

    def states(self, weights: Arrays, *, step: int, steps: int) -> Arrays:
        """What tells the form from this step on, for each place: an array of float32 or int32, always of one shape."""

    def projected(self, weight: Any, state: Any, *, place: int) -> Any:
        """The tensor nearest to `weight` that has the form. By keras.ops; called in every step, and compiled."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A constraint at work in one training. sources, states: variables, one of each for each place.

    means: of the sources, where the training keeps such.
    """

    constraint: Constraint
    sources: tuple[Any, ...]
    states: tuple[Any, ...]
    means: tuple[Any, ...]

    @classmethod
    def start(
        cls,
        constraint: Constraint,
        variables: list[Any],
        optimizer: keras.optimizers.Optimizer,
        *,
        mean_of: Callable[[Any], Any],
    ) -> Form:
        """variables: of the model, in its own order.  mean_of: the mean of a variable, or None."""
        from emb.train.optimizers import inner

        inside = inner(optimizer)
        sources = tuple(variables[place] for place in constraint.places)
        # Their shapes and kinds are those of any state; the right one comes before the first step.
        weights = {place: np.array(variables[place]) for place in constraint.places}
        first = constraint.states(weights, step=0, steps=1)
        states = tuple(
            inside.add_variable(shape=first[place].shape, dtype=str(first[place].dtype), name="form")
            for place in constraint.places
        )
        means = tuple(mean for mean in map(mean_of, sources) if mean is not None)
        return cls(constraint=constraint, sources=sources, states=states, means=means)

    def renew(self, session: TensorFlowSteps | JaxSteps, *, step: int, steps: int) -> None:
        """Before a step: let the form change if it is time. step: of all epochs, from 0."""
        if not self.constraint.is_due(step, steps=steps):
            return
        weights = {
            place: session.value(source) for place, source in zip(self.constraint.places, self.sources, strict=True)
        }
        fresh = self.constraint.states(weights, step=step, steps=steps)
        for place, state in zip(self.constraint.places, self.states, strict=True):
            session.put(state, fresh[place])

    def apply(self) -> None:
        """To be called within a step, after the weights and their means have changed."""
        for group in (self.sources, self.means):
            # Without means the second group is empty.
            for place, variable, state in zip(self.constraint.places, group, self.states, strict=False):
                variable.assign(self.constraint.projected(variable, state, place=place))
