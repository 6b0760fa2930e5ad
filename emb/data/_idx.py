"""Reads idx files (gzipped or plain), the format of MNIST and its descendants. Splits nothing.

Source: LeCun, Cortes, Burges, "The MNIST database": two zero bytes, type (8 = unsigned byte), number of
dimensions, each dimension as a big-endian 32-bit number, then the values, last dimension fastest.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emb.data._files import damaged, read_bytes
from emb.data._locate import Located
from emb.data._parts import Parts
from emb.data._pixels import to_shape
from emb.errors import DataError
from emb.spec.dataset import DataRequest, Split

_UNSIGNED_BYTE = 8


def read_parts(located: Located, request: DataRequest, *, labels: tuple[str, ...]) -> Parts:
    """MNIST's four files: train images, train labels, test images, test labels; images of 28x28 grey pixels."""
    train_images, train_labels, test_images, test_labels = located.files
    return Parts(
        train=_read_split(located.name, train_images, train_labels, classes=len(labels), request=request),
        test=_read_split(located.name, test_images, test_labels, classes=len(labels), request=request),
        labels=labels,
    )


def read_idx(path: Path, *, dimensions: int, fix: str) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes as an array with that many dimensions (read-only).

    Raises DataError if it is truncated, too long, or of another type.
    """
    content = _content(path, fix=fix)
    header_bytes = 4 + 4 * dimensions
    expected = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if len(content) < header_bytes:
        raise damaged(path, f"it ends after {len(content)} bytes, inside the header of {header_bytes}", fix=fix)
    if content[:4] != expected:
        why = f"its magic number is 0x{content[:4].hex()} instead of 0x{expected.hex()}"
        raise damaged(path, why, fix=fix)
    shape = struct.unpack(f">{dimensions}I", content[4:header_bytes])
    wanted_bytes = int(np.prod(shape, dtype=object))
    if len(content) - header_bytes != wanted_bytes:
        sizes = "x".join(map(str, shape))
        why = f"its header promises {sizes} = {wanted_bytes:,} bytes, {len(content) - header_bytes:,} follow"
        raise damaged(path, why, fix=fix)
    return np.frombuffer(content, dtype=np.uint8, offset=header_bytes).reshape(shape)


def _content(path: Path, *, fix: str) -> bytes:
    content = read_bytes(path)
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except EOFError:
        raise damaged(path, f"the gzip stream of {len(content):,} bytes is truncated", fix=fix) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise damaged(path, f"it is no intact gzip file: {error}", fix=fix) from error


def _read_split(name: str, images: Path, labels: Path, *, classes: int, request: DataRequest) -> Split:
    fix = f"delete it and run `emb data fetch {name}`, or replace it by an intact copy"
    pixels = read_idx(images, dimensions=3, fix=fix)
    numbers = read_idx(labels, dimensions=1, fix=fix)
    if pixels.shape[1:] != (28, 28):
        raise damaged(images, f"its images are {pixels.shape[1]}x{pixels.shape[2]} instead of 28x28", fix=fix)
    if len(pixels) != len(numbers):
        raise DataError(
            f"{images} holds {len(pixels):,} images, {labels.name} beside it {len(numbers):,} labels",
            why="the two files do not belong together, or one of them is damaged",
            fix=f"delete both and run `emb data fetch {name}`",
        )
    wrong = np.flatnonzero(numbers >= classes)
    if len(wrong):
        why = f"label {int(wrong[0])} is {int(numbers[wrong[0]])}; the classes are 0 to {classes - 1}"
        raise damaged(labels, why, fix=fix)
    return Split(images=to_shape(pixels[..., np.newaxis], shape=request.shape), labels=numbers.astype(np.int64))
