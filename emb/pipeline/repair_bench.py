"""What remedies are judged by: the file that a candidate becomes, run on the validation images. Chooses no remedy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emb.pipeline.quantized_models import Candidate, float_operations, known_in
from emb.pipeline.stage import Work
from emb.pipeline.stages import write_float
from emb.pipeline.validation import correct_of
from emb.spec.contract import Pixels
from emb.spec.repair import FloatLayers
from emb.spec.scheme import Scheme

FLOAT, QUANTIZED = "float.tflite", "quantized.tflite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A remedy's result. layers: that it changed, the most changed first.

    float_layers: that it left in float32, if any.  shortfall: why these are undone where the goal is not reached.
    """

    candidate: Candidate
    layers: tuple[str, ...]
    shortfall: str = ""
    float_layers: FloatLayers | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """images: for calibration, as the model takes them.  scheme: of the file.

    enough: so many right validation images reach the goal.
    """

    work: Work
    images: NDArray[np.float32]
    scheme: Scheme
    enough: int = 0

    @property
    def bits(self) -> int:
        """Of the weights."""
        return self.scheme.weight_bits

    @property
    def total(self) -> int:
        return len(self.work.context.dataset.validation)

    def correct_of(self, path: Path) -> int:
        """How many validation images a .tflite file gives the right class on LiteRT."""
        return correct_of(path, self.work, pixels=Pixels())

    def judge(self, folder: Path) -> int:
        """The same of the file that becomes of the model.keras and ranges.json in `folder`."""
        pixels = write_float(folder / "model.keras", folder / FLOAT, work=self.work)
        trust = self.work.context.trust_model
        kept = frozenset(one.output for one in float_operations(folder, folder / FLOAT, trust=trust))
        self.quantize(folder, pixels=pixels, kept=kept)
        return self.correct_of(folder / QUANTIZED)

    def quantize(self, folder: Path, *, pixels: Pixels, kept: frozenset[str] = frozenset()) -> None:
        """quantized.tflite of the float.tflite and ranges.json in `folder`. kept: see `quantize_tflite`."""
        from emb.quantize import quantize_tflite

        quantize_tflite(
            folder / FLOAT,
            folder / QUANTIZED,
            scheme=self.scheme,
            calibration=np.load(self.work.file("calibration", "calibration.npy")),
            method=self.work.context.recipe.quantize.calibration_method,
            pixels=pixels,
            known=known_in(folder),
            kept=kept,
        )
