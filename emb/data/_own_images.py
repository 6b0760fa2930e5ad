"""Reads images that somebody wants to calibrate on: a folder, or an array in a file. Never unpickles, draws nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.data._arrays import reading
from emb.data._pixels import read_all
from emb.errors import DataError

_IMAGES = (".jpg", ".jpeg", ".png")
_ARRAYS = (".npy", ".npz")


def read_own_images(
    path: Path, *, shape: tuple[int, int, int], labels: Sequence[str]
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """The images, and their classes if they are known.

    path: a folder of JPEG and PNG files, at any depth, which are brought to `shape` as those of a data set are; a
    file's class is its directory's name, if that is one of `labels` for all of them. Or a .npy file with an array of
    images; or a .npz file with such an array as `x` (or alone) and class numbers as `y`. Arrays stay as they are.
    Raises DataError, naming the file, for whatever cannot be read.
    """
    if not path.exists():
        raise DataError(f"there are no calibration images at {path}", fix="check the path")
    if path.is_dir():
        return _folder(path, shape=shape, labels=labels)
    if path.suffix.lower() not in _ARRAYS:
        raise DataError(
            f"{path} holds no calibration images that emb reads",
            why=f"its name ends in {path.suffix!r}" if path.suffix else "its name has no suffix",
            fix="give a folder of JPEG or PNG files, or an array in a .npy or .npz file",
        )
    arrays = _arrays(path)
    key = "x" if "x" in arrays else next((name for name in arrays if name != "y"), None)
    if key is None or ("x" not in arrays and len(arrays.keys() - {"y"}) > 1):
        raise DataError(
            f"{path} does not say which array holds the images",
            why=f"it has {', '.join(sorted(arrays)) or 'no arrays at all'}",
            fix="save them as x, and their classes as y: np.savez_compressed(file, x=images, y=classes)",
        )
    images = arrays[key]
    if images.ndim not in (3, 4):
        raise DataError(
            f"{path}: {key} has the shape {images.shape}",
            why="images are (n, height, width) or (n, height, width, channels)",
            fix="save all images in one such array",
        )
    return images, _classes(path, arrays.get("y"), count=len(images), classes=len(labels))


def _folder(
    path: Path, *, shape: tuple[int, int, int], labels: Sequence[str]
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    files = sorted(
        Path(directory) / name
        for directory, _, names in os.walk(path)
        for name in names
        if Path(name).suffix.lower() in _IMAGES and not name.startswith(".")
    )
    if not files:
        raise DataError(f"{path} holds no images", why="there is no JPEG or PNG file in it", fix="name another folder")
    numbers = {label: number for number, label in enumerate(labels)}
    classes = [numbers.get(file.parent.name) for file in files]
    known = [number for number in classes if number is not None]
    images = read_all(files, count=len(files), shape=shape)
    return images, np.array(known, np.int64) if len(known) == len(files) else None


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with reading(path, kind=path.suffix, save="np.save or np.savez_compressed"):
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"x": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}


def _classes(path: Path, numbers: NDArray[Any] | None, *, count: int, classes: int) -> NDArray[np.int64] | None:
    if numbers is None:
        return None
    flat = numbers.reshape(-1)
    if flat.dtype.kind not in "iu" or len(flat) != count or ((flat < 0) | (flat >= classes)).any():
        raise DataError(
            f"{path}: y is {numbers.dtype} of the shape {numbers.shape}",
            why=f"it must hold the classes of the {count:,} images, whole numbers from 0 to {classes - 1}",
            fix="correct it, or leave it out",
        )
    return flat.astype(np.int64)
