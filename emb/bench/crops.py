"""Crops of images for multi-crop evaluation, cut when they are asked for. Knows neither models nor files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from emb.errors import SpecError
from emb.spec.dataset import Images

COUNTS = (1, 5, 10)

# How much larger than a crop the image is that it is cut from: AlexNet cut 224 of 256 pixels.
_MARGIN = 8 / 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """The same rectangle of every image of a sequence, mirrored or not; itself such a sequence of uint8 images."""

    images: Images
    top: int
    left: int
    height: int
    width: int
    mirrored: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, height, width, channels)."""
        return (len(self.images), self.height, self.width, self.images.shape[3])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.images.dtype

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Any, /) -> Any:
        rows, columns = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        part = self.images[key][..., rows, columns, :]
        return part[..., ::-1, :] if self.mirrored else part


def require_count(count: int) -> None:
    """Raises SpecError unless `count` is a number of crops that `crops` makes."""
    if count not in COUNTS:
        raise SpecError(
            f"--crops cannot be {count}",
            why="crops are the centre (1), with the four corners (5), and these mirrored as well (10)",
            fix=f"give one of {', '.join(map(str, COUNTS))}",
        )


def shape_to_crop_from(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The (height, width, channels), 8/7 as large, that images need so that crops of `shape` can be cut from them."""
    height, width, channels = shape
    return round(height * _MARGIN), round(width * _MARGIN), channels


def crops(images: Images, *, shape: tuple[int, int, int], count: int) -> tuple[Crop, ...]:
    """`count` crops of `shape` of every image: the centre first, then the four corners, then all five mirrored.

    images: (n, height, width, channels) uint8, as large as `shape` or larger.  count: one of COUNTS.
    Raises SpecError for another count.
    Source: Krizhevsky et al. 2012, section 4.1 (10 crops); Szegedy et al. 2014, section 7, averages over more.
    """
    require_count(count)
    height, width, _ = shape
    down, right = images.shape[1] - height, images.shape[2] - width
    corners = [(down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right)]
    places = [(top, left, mirrored) for mirrored in (False, True) for top, left in corners][:count]
    return tuple(
        Crop(images=images, top=top, left=left, height=height, width=width, mirrored=mirrored)
        for top, left, mirrored in places
    )
