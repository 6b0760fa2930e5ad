"""Turns a float32 file into one of a quantization scheme; one public file per scheme. Fetches no calibration image.

The underscore files do the work and are imported when used: listing the schemes imports no quantizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emb.registry import Registry
from emb.spec.contract import Pixels
from emb.spec.scheme import Scheme

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emb.quantize._known import KnownRange
    from emb.quantize._ranges import Range

__all__ = ["SCHEMES", "KnownRange", "Method", "Range", "quantize_onnx", "quantize_tflite"]

SCHEMES = Registry("emb.quantize", kind="quantization scheme")

Method = Literal["minmax", "percentile", "mse"]


def __getattr__(name: str) -> Any:
    """Values that need NumPy, for those who use them: listing the schemes imports nothing heavy."""
    if name == "KnownRange":
        from emb.quantize._known import KnownRange

        return KnownRange
    if name == "Range":
        from emb.quantize._ranges import Range

        return Range
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def quantize_tflite(
    float_path: Path,
    out_path: Path,
    *,
    scheme: Scheme,
    calibration: NDArray[np.generic] | None = None,
    method: Method = "minmax",
    pixels: Pixels = Pixels(),  # noqa: B008  a frozen value
    known: Sequence[KnownRange] = (),
) -> None:
    """Write the float32 .tflite at `float_path` to `out_path` in the number formats of `scheme`.

    calibration: (images, height, width, channels) raw pixels, 0..255; needed if `scheme.calibrated`.
    method: how a tensor's range follows from its values; see docs/explanation/quantization.md.
    pixels: how the model's real input follows from a pixel; it fixes the input's scale and zero point.
    known: ranges that were chosen before, for tensors that are recognized by their values; others follow from `method`.
    Raises ExportError naming the operation where the scheme cannot be had in TFLite or a float tensor remains,
    ModelError for activations that are not finite, DataError for calibration images that do not fit the model.
    """
    from emb.quantize._tflite import quantize

    quantize(float_path, out_path, scheme=scheme, calibration=calibration, method=method, pixels=pixels, known=known)


def quantize_onnx(
    float_path: Path,
    out_path: Path,
    *,
    scheme: Scheme,
    calibration: NDArray[np.generic] | None = None,
    method: Method = "minmax",
    pixels: Pixels = Pixels(),  # noqa: B008  a frozen value
    known: Sequence[KnownRange] = (),
) -> None:
    """Write the float32 .onnx at `float_path` to `out_path` in the number formats of `scheme`.

    Arguments and errors as for `quantize_tflite`. The model's input may be (1, channels, height, width) or
    (1, height, width, channels). An int8 model takes and returns uint8 tensors.
    """
    from emb.quantize._onnx import quantize

    quantize(float_path, out_path, scheme=scheme, calibration=calibration, method=method, pixels=pixels, known=known)
