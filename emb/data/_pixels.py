"""Decodes and resizes images with Pillow. Knows no data set.

The one way that every image goes: turned upright by its EXIF orientation, brought to grey (ITU-R 601 luma,
L = 0.299 R + 0.587 G + 0.114 B) or RGB, its largest centred part of the wanted aspect ratio scaled to the wanted
size by Pillow's BILINEAR filter, which averages over all source pixels when it makes an image smaller
(antialiasing). Transparent pixels are laid over white; 16-bit grey values are rounded to 8 bit.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emb.data._files import unreadable
from emb.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = ("JPEG", "PNG")


def read(path: Path, *, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A JPEG or PNG as `shape`, (height, width, channels), uint8. Raises DataError, naming the file."""
    height, width, channels = shape
    with _opened(path) as image:
        upright = _with_channels(_upright(image), channels)
        return np.asarray(_fitted(upright, height=height, width=width), dtype=np.uint8).reshape(shape)


def probe(path: Path) -> tuple[int, int, int]:
    """(height, width, channels) of a JPEG or PNG from its header, upright. Raises DataError, naming the file."""
    with _opened(path) as image:
        width, height = image.size
        if image.getexif().get(0x0112, 1) >= 5:  # orientations 5 to 8 lie on their side
            height, width = width, height
        return height, width, 1 if image.mode in ("1", "L", "LA", "I;16") else 3


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
        image = _with_channels(fromarray(source[..., 0] if source.shape[2] == 1 else source), channels)
        target[...] = np.asarray(_fitted(image, height=height, width=width, resampling=resampling)).reshape(shape)
    return result


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    from PIL import Image, UnidentifiedImageError

    fix = "replace it by an intact JPEG or PNG, or remove it"
    try:
        with warnings.catch_warnings():
            # Large photographs are legitimate here; Pillow still refuses what is twice as large again.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
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


def _upright(image: Image) -> Image:
    from PIL.ImageOps import exif_transpose

    return exif_transpose(image)


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
