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
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from emb.data._files import unreadable
from emb.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_T = TypeVar("_T")
_R = TypeVar("_R")
_FORMATS = ("JPEG", "PNG")
_ORIENTATION_TAG = 0x0112


def read_all(paths: Sequence[Path], *, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """JPEG or PNG files as (n, *shape), shape = (height, width, channels). Raises DataError, naming the file."""
    pixels = np.empty((len(paths), *shape), dtype=np.uint8)

    def fill(index: int) -> None:
        pixels[index] = _read(paths[index], shape)

    _for_each(fill, range(len(paths)))
    return pixels


def probe_all(paths: Sequence[Path]) -> list[tuple[int, int, int]]:
    """(height, width, channels) of each JPEG or PNG, upright. Raises DataError, naming the file."""
    return _for_each(_probe, paths)


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


def _for_each(function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    from PIL.Image import DecompressionBombWarning

    with warnings.catch_warnings():
        # Large photographs are legitimate here; Pillow still refuses what is twice as large again.
        warnings.simplefilter("ignore", DecompressionBombWarning)
        warnings.filterwarnings("ignore", message="Corrupt EXIF data", category=UserWarning)
        # Pillow decodes and scales without the interpreter lock.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(function, items))


def _read(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    height, width, channels = shape
    with _opened(path) as image:
        upright = _with_channels(_upright(image), channels)
        return np.asarray(_fitted(upright, height=height, width=width), dtype=np.uint8).reshape(shape)


def _probe(path: Path) -> tuple[int, int, int]:
    with _opened(path) as image:
        width, height = image.size
        if _orientation(image) >= 5:  # 5 to 8 lie on their side
            height, width = width, height
        return height, width, 1 if image.mode in ("1", "L", "LA", "I;16") else 3


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    from PIL import Image, UnidentifiedImageError

    fix = "replace it by an intact JPEG or PNG, or remove it"
    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except UnidentifiedImageError:
        raise DataError(f"{path} is no image", why="its content is neither JPEG nor PNG", fix=fix) from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large an image", why=str(error), fix="make it smaller") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        # Pillow reports broken image data as an OSError without a number; one with a number is the file system's.
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        raise DataError(f"{path} is a damaged image", why=str(error), fix=fix) from error


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
    box = (left, top, left + width * part, top + height * part)
    return image.resize((width, height), Resampling.BILINEAR if resampling is None else resampling, box=box)
