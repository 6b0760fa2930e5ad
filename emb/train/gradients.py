"""The 2-norms of a training's gradients, step by step, as a value and as a file. Knows no training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNorms:
    """names: of the trainable variables, as layer/variable, from input to output.

    norms: (steps, variables) float32, every step of the training in its order; NaN where a variable was not trained.
    """

    names: tuple[str, ...]
    norms: NDArray[np.float32]

    def write(self, path: Path) -> None:
        """An .npz file with step (steps,) int64 from 1, names (variables,) text, norms (steps, variables) float32."""
        step = np.arange(1, len(self.norms) + 1, dtype=np.int64)
        with path.open("wb") as file:
            np.savez(file, step=step, names=np.array(self.names, dtype=np.str_), norms=self.norms)

    @classmethod
    def read(cls, path: Path) -> GradientNorms:
        """What `write` wrote. Raises OSError, ValueError or KeyError for anything else."""
        with np.load(path, allow_pickle=False) as content:
            return cls(names=tuple(content["names"].tolist()), norms=content["norms"])
