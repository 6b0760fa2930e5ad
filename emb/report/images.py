"""Draws a convolution's kernels and its feature maps as grids, and writes PNG files. Knows no model and no format."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emb.errors import StoreError
from emb.store import explained

if TYPE_CHECKING:
    from PIL.Image import Image

_GAP_PIXELS = 2
_LEAST_TILE_PIXELS = 48
# Neither black, white nor grey, so that no tile runs into what is between them.
_BACKGROUND = (176, 196, 222)


def kernel_grid(kernels: NDArray[np.float32]) -> Image:
    """The kernels of one convolution, a tile each, row by row; every weight is a square.

    kernels: (height, width, channels, filters) float. One channel: whiter is a smaller, more negative weight, darker
    a larger one. Three: the weights as red, green and blue, brighter is larger. Others: one row of tiles for each
    filter, one tile for each channel, as for one channel. One scale, from the least weight to the largest, for all.
    """
    shades = _shades(kernels)
    height, width, channels, filters = kernels.shape
    if channels == 3:
        tiles = shades.transpose(3, 0, 1, 2)
        columns = math.ceil(math.sqrt(filters))
    else:
        grey = (255 - shades).transpose(3, 2, 0, 1).reshape(filters * channels, height, width)
        tiles = np.repeat(grey[..., np.newaxis], 3, axis=3)
        columns = channels if channels > 1 else math.ceil(math.sqrt(filters))
    return _grid(tiles, columns=columns)


def map_grid(maps: NDArray[np.float32]) -> Image:
    """The feature maps of one layer, a tile each, row by row; brighter is larger, on one scale for all.

    maps: (height, width, channels) float.
    """
    shades = _shades(maps).transpose(2, 0, 1)
    return _grid(np.repeat(shades[..., np.newaxis], 3, axis=3), columns=math.ceil(math.sqrt(len(shades))))


def write_png(image: Image, path: Path) -> None:
    """Write a PNG file; one that is there already is replaced as a whole.

    Raises StoreError if the directory is missing or cannot be written.
    """
    directory = path.absolute().parent
    if not directory.is_dir():
        raise StoreError(
            f"cannot write {path}", why=f"there is no directory {directory}", fix="make it, or choose another place"
        )
    with explained("write", path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".png", dir=directory)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                image.save(stream, format="PNG")
            # mkstemp's file is its owner's alone; a picture is made with the rights of every other file.
            mask = os.umask(0)
            os.umask(mask)
            Path(name).chmod(0o666 & ~mask)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _shades(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0 for the least value to 255 for the largest; 128 for all if they are equal. NaN counts as the least."""
    least, largest = float(np.nanmin(values)), float(np.nanmax(values))
    if not largest > least:
        return np.full(values.shape, 128, np.uint8)
    scaled = (np.nan_to_num(values, nan=least).astype(np.float64) - least) / (largest - least)
    shades: NDArray[np.uint8] = np.rint(255 * scaled).astype(np.uint8)
    return shades


def _grid(tiles: NDArray[np.uint8], *, columns: int) -> Image:
    """tiles: (tiles, height, width, 3) uint8."""
    from PIL.Image import fromarray

    count, height, width, _ = tiles.shape
    zoom = max(1, math.ceil(_LEAST_TILE_PIXELS / max(height, width)))
    tiles = tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)
    down, right = height * zoom + _GAP_PIXELS, width * zoom + _GAP_PIXELS
    rows = math.ceil(count / columns)
    canvas = np.empty((rows * down + _GAP_PIXELS, columns * right + _GAP_PIXELS, 3), np.uint8)
    canvas[...] = _BACKGROUND
    for place, tile in enumerate(tiles):
        top, left = _GAP_PIXELS + place // columns * down, _GAP_PIXELS + place % columns * right
        canvas[top : top + height * zoom, left : left + width * zoom] = tile
    return fromarray(canvas)
