"""Image data sets: where they lie, what they hold, and how they are split. Knows nothing of models or training.

Each public file is one data set or format with two functions:

    find(request: DataRequest) -> Located                       reads no pixels and imports no numpy
    read(located: Located, request: DataRequest) -> Parts       raw pixels, in the shape that was asked for

and, where the files may be downloaded, a constant DOWNLOAD (emb.data._fetch.Download).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.data._locate import Located
from emb.errors import DataError
from emb.registry import Registry
from emb.spec.dataset import DataRequest, Dataset, Split
from emb.store import cache_directory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emb.data._fetch import Fetched

__all__ = [
    "DATA",
    "Located",
    "calibration_images",
    "calibration_split",
    "digest",
    "downloadable",
    "fetch",
    "fetch_file",
    "load",
    "locate",
    "own_images",
    "read_image",
    "sample",
    "search_directories",
    "user_directory",
]

DATA = Registry("emb.data", kind="data set")


def user_directory() -> Path:
    """Where `emb data fetch` puts data sets: `data` in the user's cache directory."""
    return cache_directory() / "data"


def search_directories(data_dir: Path | None) -> tuple[Path, ...]:
    """Where data sets are looked for, in this order: `data_dir`, $EMB_DATA_DIR, the user's cache.

    Raises DataError if `data_dir` is given and is no directory: silently using data from elsewhere would be worse.
    """
    directories = []
    if data_dir is not None:
        if not data_dir.is_dir():
            raise DataError(
                f"{data_dir} is no directory",
                why="it was given as the place where data sets lie",
                fix="name the directory that holds mnist/, fashion-mnist/, cifar10/ ..., or leave it out",
            )
        directories.append(data_dir.absolute())
    if own := os.environ.get("EMB_DATA_DIR"):
        directories.append(Path(own).expanduser().absolute())
    directories.append(user_directory().absolute())
    return tuple(dict.fromkeys(directories))


def locate(name: str, request: DataRequest) -> Located:
    """Where a data set lies, or in `problem` why it cannot be used and what to do. Opens no data file.

    Raises SpecError for an unknown name.
    """
    located = DATA.get(name).find(request)
    if not isinstance(located, Located):
        raise TypeError(f"{name}.find must return Located, not {type(located).__name__}")
    return located


def digest(name: str, request: DataRequest) -> str:
    """sha256 (hex) of the content of a data set's files, without decoding them.

    Raises DataError if the data set is missing or incomplete or a file cannot be read.
    """
    from emb.data._digest import digest_of

    return digest_of(locate(name, request).require())


def load(name: str, request: DataRequest) -> Dataset:
    """The data set as three disjoint splits of raw uint8 pixels; validation is a stratified share of train.

    The images of a large folder are no arrays but are decoded when they are asked for (emb.spec.dataset.Images).
    Raises DataError, naming the file, for whatever is missing, damaged or unfit.
    """
    from emb.data._digest import digest_of
    from emb.data._parts import assemble

    located = locate(name, request).require()
    return assemble(name, DATA.get(name).read(located, request), request=request, digest=digest_of(located))


def calibration_split(dataset: Dataset, *, count: int, seed: int) -> Split:
    """`count` different train images, equally many of each class as far as the classes' sizes allow.

    images: (count, height, width, channels) uint8, in random order. Raises DataError if train holds fewer images.
    """
    if not 1 <= count <= len(dataset.train):
        raise DataError(
            f"{count:,} calibration images were asked for; the train split of {dataset.name} holds "
            f"{len(dataset.train):,}",
            fix=f"ask for 1 to {len(dataset.train):,} (--calibration)",
        )
    return _balanced(dataset.train, count=count, seed=seed)


def calibration_images(dataset: Dataset, *, count: int, seed: int) -> NDArray[np.uint8]:
    """The images of `calibration_split` alone."""
    images: NDArray[np.uint8] = calibration_split(dataset, count=count, seed=seed).images[:]
    return images


def sample(split: Split, *, count: int, seed: int, balanced: bool) -> Split:
    """`count` images of a split in random order, all of them if there are fewer.

    balanced: equally many of each class where possible, else in the classes' own shares.
    """
    import numpy as np

    count = min(count, len(split))
    if balanced:
        return _balanced(split, count=count, seed=seed)
    return _chosen(split, np.random.default_rng(seed).permutation(len(split))[:count])


def _balanced(split: Split, *, count: int, seed: int) -> Split:
    from emb.data._splits import balanced

    return _chosen(split, balanced(split.labels, count=count, seed=seed))


def _chosen(split: Split, numbers: NDArray[np.int64]) -> Split:
    return Split(images=split.images[numbers], labels=split.labels[numbers])


def own_images(
    path: Path, *, shape: tuple[int, int, int], labels: Sequence[str]
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Images of a folder or of a .npy or .npz file and, if they are known, their classes; see emb.data._own_images.

    Raises DataError, naming the file, if they cannot be read.
    """
    from emb.data._own_images import read_own_images

    return read_own_images(path, shape=shape, labels=labels)


def read_image(path: Path, *, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """One JPEG or PNG as (height, width, channels) uint8, by the same way as the images of `folder`.

    Raises DataError, naming the file, if it cannot be read or decoded.
    """
    from emb.data._pixels import read_all

    image: NDArray[np.uint8] = read_all([path], count=1, shape=shape)[0]
    return image


def downloadable() -> tuple[str, ...]:
    """Names of the data sets that `fetch` can download."""
    return tuple(name for name in DATA.names() if hasattr(DATA.get(name), "DOWNLOAD"))


def fetch(
    name: str, *, directory: Path | None = None, progress: Callable[[str, int, int], None] | None = None
) -> Fetched:
    """Download a data set's files into `directory` (the user's cache by default), each with its checksum.

    progress: called with (file name, bytes so far, bytes in all). What an interrupted call left is continued.
    Raises DataError if there is nothing to download, no connection, or a wrong checksum.
    """
    from emb.data._fetch import fetch_all

    module = DATA.get(name)
    if not hasattr(module, "DOWNLOAD"):
        raise DataError(
            f"there is nothing to download for {name}",
            why=DATA.help(name),
            fix=f"known: {', '.join(downloadable())}",
        )
    return fetch_all(name, module.DOWNLOAD, directory=directory or user_directory(), progress=progress)


def fetch_file(
    url: str,
    *,
    checksum: str,
    directory: Path,
    of: str,
    command: str,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """One published file in `directory`, downloaded unless it lies there already; an interrupted call is continued.

    checksum: "sha256:..." or "md5:...".  of, command: what it belongs to and what fetches it, for messages.
    Raises DataError without a connection or with a wrong checksum.
    """
    from emb.data._fetch import Download, RemoteFile, fetch_all

    remote = RemoteFile(name=url.rsplit("/", 1)[1], urls=(url,), total_bytes=None, checksum=checksum)
    download = Download(folder=".", files=(remote,), command=command)
    return fetch_all(of, download, directory=directory, progress=progress).files[0]
