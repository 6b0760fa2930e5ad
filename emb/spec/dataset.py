"""A data set as values: where to look for it, and its images and labels. Knows no file format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Images(Protocol):
    """Images as a sequence: a numpy array, or files that are decoded when they are asked for.

    shape: (n, height, width, channels).  dtype: uint8.  images[key] is a numpy array of uint8 whatever they are;
    key: an int, a slice, an array of ints or a mask of n bools, along the first axis, with numpy's meaning.
    Whoever reads them all does so in batches: `images[:]` and `np.asarray(images)` may not fit in memory.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest:
    """What a loader needs to know.

    directories: searched in this order for `mnist/train-images-idx3-ubyte.gz` and the like.
    path: the folder or file of `folder` and `arrays`; None for the named data sets.
    shape: (height, width, channels) that the images shall have; None keeps the data set's own.
    validation_fraction: share of the train images set aside, in (0, 1).
    skip_bad: leave out image files that cannot be decoded, instead of refusing the data set.
    """

    directories: tuple[Path, ...] = ()
    path: Path | None = None
    shape: tuple[int, int, int] | None = None
    validation_fraction: float = 0.1
    seed: int = 0
    skip_bad: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """images: (n, height, width, channels) uint8, raw pixels.  labels: (n,) int64 in [0, classes)."""

    images: Images
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Three disjoint splits of one data set; `labels` names the classes in the order of their numbers.

    digest: sha256 (hex) of the source files' content, the part of a cache key that stands for the data.
    notes: what the user should know of it, such as the images that were left out.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    labels: tuple[str, ...]
    digest: str
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        _, height, width, channels = self.train.images.shape
        return height, width, channels
