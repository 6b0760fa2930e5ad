"""Images that stay in their files until they are asked for. Knows neither classes nor splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from emb.data._pixels import FIX, read_all


class StreamedImages:
    """Some of `files`, decoded when they are indexed: emb.spec.dataset.Images, (n, height, width, channels) uint8.

    files: JPEG or PNG.  chosen: (n,) int64, indices into files.  fix: what the user can do about a bad image.
    Indexing has numpy's meaning along the first axis, decodes what it was asked for in a few threads, and may be done
    by several threads at once. Raises DataError, naming the file, for an image that cannot be decoded.
    """

    def __init__(
        self, files: Sequence[Path], chosen: NDArray[np.int64], *, shape: tuple[int, int, int], fix: str = FIX
    ) -> None:
        self._files = files
        self._chosen = chosen
        self._shape = shape
        self._fix = fix

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._chosen), *self._shape)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return np.dtype(np.uint8)

    @property
    def ndim(self) -> int:
        return 4

    @property
    def nbytes(self) -> int:
        """What all images would take in memory."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, key: Any, /) -> NDArray[np.uint8]:
        wanted = np.asarray(self._chosen[key])
        paths = (self._files[int(index)] for index in wanted.ravel())
        pixels = read_all(paths, count=wanted.size, shape=self._shape, fix=self._fix)
        return pixels.reshape(*wanted.shape, *self._shape)

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        # numpy would otherwise read the images one by one, all of them.
        raise TypeError(f"these images would take {self.nbytes:,} bytes of memory; index them in batches")

    def select(self, key: Any) -> StreamedImages:
        """Those that images[key] would decode, as a sequence of the same kind; reads nothing."""
        return StreamedImages(self._files, self._chosen[key], shape=self._shape, fix=self._fix)
