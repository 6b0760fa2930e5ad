"""Sets the smallest weights to 0, as many as asked for or N:M of neighbours. Makes no file smaller and nothing faster.

The zeros are stored as any other weight, so that the file has as many bytes as before and runs as fast as before; they
pay where the file is compressed. Quantization keeps every zero, as weights have the zero point 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from emb.errors import ModelError
from emb.prune._kernels import Kernel, OnKernels, kernels
from emb.spec.pruning import Goal

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

    Arrays = Mapping[int, NDArray[Any]]

# Zhu and Gupta set masks anew every 100 to 1000 of 10,000 steps and more; here the ramp has so many stairs at most.
_STAIRS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Zeros(OnKernels):
    """Which weights are 0, as a function of the weights: the constraint that emb.train keeps.

    scope: "global" compares all weights, "uniform" sets the same share of every layer to 0.
    ramp_fraction: the share of the steps in which the zeros grow to their number; a pattern is there at once.
    """

    goal: Goal
    scope: Literal["global", "uniform"]
    ramp_fraction: float

    def is_due(self, step: int, *, steps: int) -> bool:
        """See emb.train.Constraint."""
        end = self._ramp(steps)
        return step == 0 or step == end or (step < end and step % max(1, end // _STAIRS) == 0)

    def states(self, weights: Arrays, *, step: int, steps: int) -> dict[int, NDArray[np.float32]]:
        """place -> mask of the weight's shape, 1 where it stays and 0 where it is 0."""
        if self.goal.kind == "pattern":
            return {
                place: pattern_mask(weights[place], kept=int(self.goal.amount), of=self.goal.of)
                for place in self.places
            }
        share = sparsity_at(step, end=self._ramp(steps), final=self.goal.amount)
        if self.scope == "uniform":
            return {place: smallest_masks([weights[place]], share=share)[0] for place in self.places}
        masks = smallest_masks([weights[place] for place in self.places], share=share)
        return dict(zip(self.places, masks, strict=True))

    def projected(self, weight: Any, state: Any, *, place: int) -> Any:
        """See emb.train.Constraint."""
        from keras import ops

        return ops.multiply(weight, ops.cast(state, weight.dtype))

    def _ramp(self, steps: int) -> int:
        """The step before which the zeros reach their number; always before the last one."""
        return 0 if self.goal.kind == "pattern" else min(int(self.ramp_fraction * steps), steps - 1)


def zeros(
    model: keras.Model, *, goal: Goal, scope: Literal["global", "uniform"] = "global", ramp_fraction: float = 0.5
) -> Zeros:
    """The constraint that brings `model` to `goal`. Raises ModelError if no layer can have zeros of that kind."""
    found, whole = kernels(model)
    left = dict(whole)
    chosen = []
    for kernel in found:
        if goal.kind == "pattern" and (reason := _no_pattern(kernel, of=goal.of)):
            left[kernel.layer] = reason
        else:
            chosen.append(kernel)
    if not chosen:
        raise ModelError(
            f"no layer of the model can be pruned to {goal}",
            why="\n       ".join(f"{layer}: {reason}" for layer, reason in left.items()) or "it has no kernels",
            fix="choose another goal, e.g. magnitude:0.5",
        )
    return Zeros(goal=goal, scope=scope, ramp_fraction=ramp_fraction, layers=tuple(chosen), left_whole=left)


def sparsity_at(step: int, *, end: int, final: float) -> float:
    """The share of zeros from a step on: it rises by a cubic from 0 to `final` at the step `end`, fast at first.

    Source: Zhu and Gupta 2017, equation 1, with the initial sparsity 0.
    """
    if step >= end:
        return final
    return final - final * (1 - step / end) ** 3


def smallest_masks(weights: Sequence[NDArray[Any]], *, share: float) -> list[NDArray[np.float32]]:
    """Masks of the shapes of `weights`, 0 at that share of all of them (rounded) with the smallest magnitudes."""
    magnitudes = np.concatenate([np.abs(array, dtype=np.float32).ravel() for array in weights])
    mask = np.ones(magnitudes.size, np.float32)
    count = round(share * magnitudes.size)
    if count:
        mask[np.argpartition(magnitudes, count - 1)[:count]] = 0
    ends = np.cumsum([array.size for array in weights])
    parts = np.split(mask, ends[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, weights, strict=True)]


def pattern_mask(weight: NDArray[Any], *, kept: int, of: int) -> NDArray[np.float32]:
    """A mask, 1 at the `kept` largest magnitudes of each `of` neighbours along the inputs, the last axis but one.

    Of equal magnitudes the first stay. Source: Mishra et al. 2021, section 3.
    """
    inputs_last = np.moveaxis(np.abs(weight), -2, -1)
    groups = inputs_last.reshape(*inputs_last.shape[:-1], -1, of)
    order = np.argsort(-groups, axis=-1, kind="stable")
    mask = np.zeros(groups.shape, np.float32)
    np.put_along_axis(mask, order[..., :kept], 1, axis=-1)
    return np.ascontiguousarray(np.moveaxis(mask.reshape(inputs_last.shape), -1, -2))


def _no_pattern(kernel: Kernel, *, of: int) -> str:
    """Why a layer cannot have the pattern, or ""."""
    if kernel.is_depthwise:
        return "each of its outputs has one input channel"
    inputs = kernel.shape[-2]
    return "" if inputs % of == 0 else f"its {inputs} input channels are no multiple of {of}"
