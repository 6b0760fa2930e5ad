"""Turns a float32 file into one of a quantization scheme; one public file per scheme. Fetches no calibration image.

The underscore files do the work and are imported when used: listing the schemes imports no quantizer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emb.registry import Registry
from emb.spec.contract import Pixels
from emb.spec.scheme import Scheme

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emb.quantize._calibration_findings import CalibrationFinding
    from emb.quantize._known import KnownRange
    from emb.quantize._layer_errors import LayerError
    from emb.quantize._ranges import Range

__all__ = [
    "SCHEMES",
    "KnownRange",
    "Method",
    "Range",
    "digest_of_pixels",
    "examine_activations",
    "examine_calibration",
    "keep_float",
    "layer_errors",
    "quantize_onnx",
    "quantize_tflite",
    "simulate_except",
    "without_integer_form",
]

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
    kept: Collection[str] = (),
    lanes: int = 0,
    maps: int = 0,
) -> int:
    """Write the float32 .tflite at `float_path` to `out_path` in the number formats of `scheme`.

    calibration: (images, height, width, channels) raw pixels, 0..255; needed if `scheme.calibrated`.
    method: how a tensor's range follows from its values; see docs/explanation/quantization.md.
    pixels: how the model's real input follows from a pixel; it fixes the input's scale and zero point.
    known: ranges that were chosen before, for tensors that are recognized by their values; others follow from `method`.
    kept: of a calibrated scheme, what compute in float32 all the same: the operations that first write these tensors of
    the float file, but for the one that writes the model's output. A DEQUANTIZE stands before them and a QUANTIZE
    behind, where an operation of integers is their neighbour. A few kinds (LEAKY_RELU, a ReLU in ONNX) follow them.
    lanes, maps: channels that the int8 kernels take at once, and channels of the output that they compute at once.
    Convolutions of fewer get neighbouring pixels as channels where that pays, with the same integers as result. With
    0 lanes, or with 1 and no more maps, they stay as they are; 0 maps are 1. Returns how many convolutions got them.
    Raises ExportError naming the operation where the scheme cannot be had in TFLite or a float tensor remains,
    ModelError for activations that are not finite, DataError for calibration images that do not fit the model.
    """
    from emb.quantize._tflite import quantize

    return quantize(
        *(float_path, out_path),
        scheme=scheme,
        calibration=calibration,
        method=method,
        pixels=pixels,
        known=known,
        kept=frozenset(kept),
        lanes=lanes,
        maps=maps,
    )


def quantize_onnx(
    float_path: Path,
    out_path: Path,
    *,
    scheme: Scheme,
    calibration: NDArray[np.generic] | None = None,
    method: Method = "minmax",
    pixels: Pixels = Pixels(),  # noqa: B008  a frozen value
    known: Sequence[KnownRange] = (),
    kept: Collection[str] = (),
    lanes: int = 0,
    maps: int = 0,
) -> int:
    """Write the float32 .onnx at `float_path` to `out_path` in the number formats of `scheme`.

    Arguments, errors and what is returned as for `quantize_tflite`. The model's input may be
    (1, channels, height, width) or (1, height, width, channels). An int8 model takes and returns uint8 tensors.
    """
    from emb.quantize._onnx import quantize

    return quantize(
        *(float_path, out_path),
        scheme=scheme,
        calibration=calibration,
        method=method,
        pixels=pixels,
        known=known,
        kept=frozenset(kept),
        lanes=lanes,
        maps=maps,
    )


def layer_errors(
    float_path: Path,
    int8_path: Path,
    images: NDArray[np.generic],
    *,
    layers: Sequence[str],
    pixels: Pixels = Pixels(),  # noqa: B008  a frozen value
) -> tuple[LayerError, ...]:
    """What int8 does to each layer of a .tflite, measured against the float file that it was made of.

    images: (n, height, width, channels) raw pixels, 0..255.
    layers: for every operation of the float file the layer that it belongs to, "" for none.
    pixels: how the model's real input follows from a pixel.
    Raises ModelError if the one file was not made of the other, or is not int8 throughout; DataError for images that
    do not fit the model.
    """
    from emb.quantize._layer_errors import layer_errors as measure

    return measure(float_path, int8_path, images, layers=layers, pixels=pixels)


def simulate_except(float_path: Path, int8_path: Path, out_path: Path, *, kept: Sequence[bool]) -> None:
    """Write a float .tflite that rounds as the int8 one does, but for the weights and outputs of some operations.

    kept: for every operation of the float file, whether it is spared. It tells what the loss of a layer costs, and is
    not meant for a board. Raises ModelError as `layer_errors`.
    """
    from emb.quantize._layer_errors import simulate_except as simulate

    simulate(float_path, int8_path, out_path, kept=kept)


def without_integer_form(float_path: Path) -> frozenset[str]:
    """The operations of a float .tflite that int8 has no kernel for, by the tensors that they first write.

    Raises ModelError for what is no float model, ExportError if it cannot be quantized at all.
    """
    from emb.quantize._tflite import without_integer_form as names

    return names(float_path)


def keep_float(float_path: Path, int8_path: Path, out_path: Path, *, kept: Sequence[bool]) -> None:
    """Write the int8 .tflite with some operations computing in float32, which a board can run.

    kept: for every operation of the float file, whether it stays float; what it reads and gives is int8 all the same,
    where an int8 operation writes or reads it. Raises ModelError as `layer_errors`, ExportError if the model cannot
    be quantized so.
    """
    from emb.quantize._layer_errors import keep_float as keep

    keep(float_path, int8_path, out_path, kept=kept)


def examine_calibration(
    images: NDArray[np.generic],
    *,
    labels: NDArray[np.int64] | None,
    train: NDArray[np.uint8],
    class_shares: NDArray[np.float64],
    classes: tuple[str, ...],
    test_digests: frozenset[bytes] = frozenset(),
) -> tuple[tuple[CalibrationFinding, ...], NDArray[np.generic] | None]:
    """What is wrong with calibration images, what is broken first; and the images as pixels 0..255.

    images: (n, height, width, channels), whatever was given.  labels: (n,) their classes, None if nobody knows.
    train: (m, height, width, channels), some train images, drawn as the calibration images should have been.
    class_shares: (classes,) of all train images.  test_digests: `digest_of_pixels` of every test image, or none.
    The images that come back have their channels and numbers put right; None if that cannot be done.
    Raises DataError for images of another size, and for none.
    """
    from emb.quantize._calibration_doctor import examine
    from emb.quantize._calibration_findings import Evidence

    return examine(
        Evidence(
            images=images,
            labels=labels,
            train=train,
            class_shares=class_shares,
            classes=classes,
            test_digests=test_digests,
        )
    )


def examine_activations(
    float_path: Path,
    images: NDArray[np.generic],
    validation: NDArray[np.generic],
    *,
    layers: Sequence[str],
    pixels: Pixels = Pixels(),  # noqa: B008  a frozen value
) -> tuple[CalibrationFinding, ...]:
    """What calibration images would miss inside a float .tflite, beside validation images.

    images, validation: (n, height, width, channels) raw pixels, 0..255.
    layers: of every operation of the file the layer that it belongs to, "" for none.
    """
    from emb.quantize._calibration_activations import examine_activations as examine

    return examine(float_path, images, validation, layers=layers, pixels=pixels)


def digest_of_pixels(image: NDArray[np.generic]) -> bytes:
    """Of one image's pixels: equal for equal pixels."""
    from emb.quantize._calibration_sample import digest_of_pixels as digest

    return digest(image)
