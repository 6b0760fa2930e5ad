"""Turns images into a model's input and its output into scores. Knows no runtime and no file format."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emb.errors import ModelError
from emb.spec.contract import Layout, Pixels, TensorContract

_RAW = Pixels()


def infer_layout(shape: tuple[int, ...], *, default: Literal["NHWC", "NCHW"]) -> Layout:
    """The layout of an image input that comes without a contract: the axis of length 1 or 3 is that of the channels.

    default: the file format's habit, taken where the shape does not decide. Rank 3 is a grey image whose channel
    axis was dropped, rank 2 a flat row. Raises ModelError for any other rank.
    """
    if len(shape) == 2:
        return "NC"
    if len(shape) == 3:
        return "NHWC"
    if len(shape) != 4:
        raise ModelError(
            f"the model's input has the shape {shape}",
            why="emb feeds images: (1, height, width, channels), (1, channels, height, width), (1, height, width) "
            "or flat rows (1, values)",
            fix="export the model with one of these input shapes",
        )
    channels_last, channels_first = shape[3] in (1, 3), shape[1] in (1, 3)
    if channels_last == channels_first:
        return default
    return "NHWC" if channels_last else "NCHW"


def to_input(images: NDArray[np.uint8], tensor: TensorContract, pixels: Pixels = _RAW) -> NDArray[Any]:
    """Images as the model takes them: (n, *tensor.shape[1:]) in tensor.dtype.

    images: (n, height, width, channels) uint8.
    Each pixel becomes real = pixel * pixels.scale + pixels.offset; in an integer tensor it is stored as
    round(real / tensor.scale) + tensor.zero_point, halves to even, clipped to the dtype's range.
    Raises ModelError if the images do not fit the tensor.
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ModelError(
            f"images must be uint8 of shape (n, height, width, channels), not {images.dtype} {images.shape}",
            fix="scale them to 0..255 and convert them to uint8",
        )
    # There are but 256 pixel values, so each is computed once.
    values = _stored_pixel_values(tensor, pixels)[_arranged(images, tensor)]
    return np.ascontiguousarray(values)


def to_scores(raw: NDArray[Any], tensor: TensorContract) -> NDArray[np.float32]:
    """One row of real-valued scores per input: (n, values) float32 from the model's stored output (n, ...)."""
    rows = raw.reshape(len(raw), int(np.prod(raw.shape[1:])))
    if tensor.scale is None:
        return rows.astype(np.float32)
    # In the integers' own wide type first: the difference of two integers is exact.
    return (rows.astype(np.int64) - (tensor.zero_point or 0)).astype(np.float32) * np.float32(tensor.scale)


def _stored_pixel_values(tensor: TensorContract, pixels: Pixels) -> NDArray[Any]:
    """The stored value of each pixel value 0..255: (256,) in tensor.dtype, computed in float64."""
    real = np.arange(256, dtype=np.float64) * pixels.scale + pixels.offset
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        return real.astype(dtype)
    stored = np.rint(real / (tensor.scale or 1.0)) + (tensor.zero_point or 0)
    limits = np.iinfo(dtype)
    clipped = np.clip(stored, limits.min, limits.max)
    if tensor.scale is None and not np.array_equal(clipped, real):
        raise ModelError(
            f"the input {tensor.name!r} is {tensor.dtype} without a scale and cannot hold the pixel values",
            why=f"they reach from {real.min():g} to {real.max():g}",
            fix="export the model with the quantization parameters of its input, or with a float input",
        )
    values: NDArray[Any] = clipped.astype(dtype)
    return values


def _arranged(images: NDArray[np.uint8], tensor: TensorContract) -> NDArray[np.uint8]:
    """The images with the tensor's axes: (n, *tensor.shape[1:]) uint8."""
    count, height, width, channels = images.shape
    wanted = tensor.shape[1:]
    if tensor.layout == "NCHW":
        arranged = images.transpose(0, 3, 1, 2)
    elif tensor.layout == "NC":
        arranged = images.reshape(count, height * width * channels)
    elif len(wanted) == 2 and channels == 1:
        arranged = images[..., 0]
    else:
        arranged = images
    if arranged.shape[1:] != wanted:
        raise ModelError(
            f"the model takes {tensor.layout} inputs of shape {wanted}, the images have {arranged.shape[1:]}",
            fix="choose the data set the model was made for, or resize the images to the model's input",
        )
    return arranged
