"""A quantization scheme as a value: which number formats a model's weights, activations and border tensors have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """formats: file formats in which the scheme exists.  integer_only: no float tensor may remain in the graph.

    weights, activations, io: dtype names; activations "float32" with integer weights means that ranges are
    found at run time (dynamic) or that weights are widened when loaded (float16).
    trained: the weights are trained on with the rounding in place before they are converted.
    """

    name: str
    summary: str
    formats: tuple[Literal["tflite", "onnx"], ...]
    weights: Literal["float32", "float16", "int8", "int4"]
    activations: Literal["float32", "int8", "int16"]
    io: Literal["float32", "int8", "uint8", "int16"]
    calibrated: bool
    trained: bool = False

    @property
    def weight_bits(self) -> int:
        """Of the integers that weights are, 8 if they are none."""
        return 4 if self.weights == "int4" else 8

    @property
    def integer_only(self) -> bool:
        return self.activations != "float32"
