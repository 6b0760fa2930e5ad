"""What a deployed model expects and returns, so that nobody on the board has to guess. Written as contract.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layout = Literal["NHWC", "NCHW", "NC"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """How the model's real input values follow from a camera's pixel: real = pixel * scale + offset, pixel in 0..255.

    (1, 0) for every model whose normalisation is part of the graph, which is all that emb builds itself.
    """

    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorContract:
    """One tensor at the model's border: real = (stored - zero_point) * scale; scale is None for a float tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: Layout
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContract:
    """One exported file with its single input and its single output (one score per class).

    scores: "probabilities" add up to 1; "logits" become probabilities by a softmax, and their order is the same.
    float_layers: layers of an int8 file that compute in float32, which a repair left so.
    """

    file: str
    format: str
    scheme: str
    sha256: str
    input: TensorContract
    output: TensorContract
    scores: Literal["probabilities", "logits"]
    float_layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """All exported files of a build. channel_order is that of the input's channel axis."""

    pixels: Pixels
    channel_order: Literal["grey", "RGB"]
    labels: tuple[str, ...]
    models: tuple[ModelContract, ...]
