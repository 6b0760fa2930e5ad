"""Decodes and resizes images with Pillow. Knows no data set.

The one way that every image goes: turned upright by its EXIF orientation, brought to grey (ITU-R 601 luma,
L = 0.299 R + 0.587 G + 0.114 B) or RGB, its largest centred part of the wanted aspect ratio scaled to the wanted
size by Pillow's BILINEAR filter, which averages over all source pixels when it makes an image smaller
(antialiasing). Unreadable EXIF data count as upright. Transparent pixels are laid over white; 16-bit grey values
are rounded to 8 bit.
"""

from __future__ import annotations

import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emb.data._files import unreadable
from emb.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

FIX = "replace it by an intact JPEG or PNG, or remove it"
_FORMATS = ("JPEG", "PNG")
_MOST_THREADS = 16
_FILES_AT_ONCE = 4096
_quiet_lock = threading.Lock()
_quiet_depth = 0
_loud: warnings.catch_warnings[None]
_ORIENTATION_TAG = 0x0112


def read_all(paths: Iterable[Path], *, count: int, shape: tuple[int, int, int], fix: str = FIX) -> NDArray[np.uint8]:
    """`count` JPEG or PNG files as (count, *shape), shape = (height, width, channels), decoded in threads.

    fix: what the user can do about a bad one. Raises DataError, naming the file.
    """
    pixels = np.empty((count, *shape), dtype=np.uint8)

    def fill(numbered: tuple[int, Path]) -> None:
        number, path = numbered
        pixels[number] = _read(path, shape, fix)

    waiting = enumerate(paths)
    with quiet():
        if count == 1:
            fill(next(waiting))
            return pixels
        # Pillow decodes and scales without the interpreter lock.
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1, max(1, count))) as pool:
            while batch := list(islice(waiting, _FILES_AT_ONCE)):
                for _ in pool.map(fill, batch):
                    pass
    return pixels


def probe(path: Path, *, fix: str = FIX) -> tuple[int, int, int]:
    """(height, width, channels) of one JPEG or PNG, upright, from its header alone. Raises DataError as `read_all`."""
    with _required(path, fix) as image:
        width, height = image.size
        if _orientation(image) >= 5:  # 5 to 8 lie on their side
            height, width = width, height
        return height, width, 1 if image.mode in ("1", "L", "LA", "I;16") else 3


def fault(path: Path) -> str:
    """Why `read_all` would refuse to decode an image, for any shape; "" if it would not.

    Raises DataError if the file cannot even be read, which is no fault of the image.
    """
    try:
        with _opened(path) as image:
            image.load()  # the rest decodes only what it has to change
            _with_channels(_upright(image), 3)
    except _UndecodableError as error:
        return f"{error.what}: {error.why}"
    return ""


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Pillow's warnings of an image's size or content back. May be entered by several threads at once."""
    global _quiet_depth, _loud
    from PIL.Image import DecompressionBombWarning

    with _quiet_lock:
        if not _quiet_depth:
            _loud = warnings.catch_warnings()
            _loud.__enter__()
            # Large photographs are legitimate here; Pillow still refuses what is twice as large again.
            warnings.simplefilter("ignore", DecompressionBombWarning)
            # Of corrupt EXIF data in many words; what cannot be decoded for it is an error all the same.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if not _quiet_depth:
                _loud.__exit__(None, None, None)


def to_shape(
    images: NDArray[np.uint8], *, shape: tuple[int, int, int] | None, sharp: bool = False
) -> NDArray[np.uint8]:
    """Images of one size, (n, h, w, 1 or 3) uint8, as (n, *shape); None and their own shape leave them as they are.

    sharp: BICUBIC instead of BILINEAR, for enlarging.
    """
    if shape is None or images.shape[1:] == shape:
        return images
    from PIL.Image import Resampling, fromarray

    height, width, channels = shape
    resampling = Resampling.BICUBIC if sharp else Resampling.BILINEAR
    result = np.empty((len(images), *shape), dtype=np.uint8)
    for target, source in zip(result, images, strict=True):
        image = fromarray(source[..., 0] if source.shape[2] == 1 else source)
        if channels == 1:
            image = _with_channels(image, channels)
        # Grey becomes RGB after scaling, with the same result at a third of the cost.
        fitted = np.asarray(_fitted(image, height=height, width=width, resampling=resampling))
        target[...] = fitted if fitted.ndim == 3 else fitted[..., np.newaxis]
    return result


def _read(path: Path, shape: tuple[int, int, int], fix: str) -> NDArray[np.uint8]:
    height, width, channels = shape
    with _required(path, fix) as image:
        upright = _with_channels(_upright(image), channels)
        return np.asarray(_fitted(upright, height=height, width=width), dtype=np.uint8).reshape(shape)


class _UndecodableError(Exception):
    """The content of an image file is at fault. what, why, fix: as of an EmbError."""

    def __init__(self, what: str, why: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix


@contextmanager
def _required(path: Path, fix: str) -> Iterator[Image]:
    try:
        with _opened(path) as image:
            yield image
    except _UndecodableError as error:
        raise DataError(error.what, why=error.why, fix=error.fix or fix) from error.__cause__


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except UnidentifiedImageError:
        raise _UndecodableError(f"{path} is no image", "its content is neither JPEG nor PNG") from None
    except Image.DecompressionBombError as error:
        raise _UndecodableError(f"{path} is too large an image", str(error), "make it smaller") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        # Pillow reports broken image data as an OSError without a number; one with a number is the file system's.
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        raise _UndecodableError(f"{path} is a damaged image", str(error)) from error


def _orientation(image: Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return 1  # the pixels may be intact all the same; if not, decoding says so


def _upright(image: Image) -> Image:
    from PIL.Image import Transpose

    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _with_channels(image: Image, channels: int) -> Image:
    mode = "L" if channels == 1 else "RGB"
    if image.mode == "I;16":
        from PIL.Image import fromarray

        values = np.asarray(image).astype(np.uint32)
        image = fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:
        from PIL.Image import alpha_composite, new

        layer = image.convert("RGBA")
        image = alpha_composite(new("RGBA", layer.size, "white"), layer)
    return image if image.mode == mode else image.convert(mode)


def _fitted(image: Image, *, height: int, width: int, resampling: int | None = None) -> Image:
    from PIL.Image import Resampling

    if image.size == (width, height):
        return image
    # The largest box of the wanted aspect ratio, around the centre; fractions of pixels are meant.
    part = min(image.width / width, image.height / height)
    left, top = (image.width - width * part) / 2, (image.height - height * part) / 2
    # Where nothing is cut off, rounding may lead out of the image by a last bit, which Pillow refuses.
    right, bottom = min(left + width * part, image.width), min(top + height * part, image.height)
    box = (max(0.0, left), max(0.0, top), right, bottom)
    return image.resize((width, height), Resampling.BILINEAR if resampling is None else resampling, box=box)
