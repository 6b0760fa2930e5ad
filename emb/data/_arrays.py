"""Reads and checks the arrays of an .npz file. Never unpickles."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.data._files import damaged, unreadable
from emb.data._parts import Parts
from emb.data._pixels import to_shape
from emb.errors import DataError
from emb.spec.dataset import Split

_REQUIRED = ("x_train", "y_train", "x_test", "y_test")


def read_parts(path: Path, *, shape: tuple[int, int, int] | None) -> Parts:
    """Train and test of the file, images in `shape`, or in their own if it is None."""
    arrays, names = _load(path)
    missing = [key for key in _REQUIRED if key not in names]
    if missing:
        raise DataError(
            f"{path} has no {', '.join(missing)}",
            why=f"it has {', '.join(sorted(names)) or 'no arrays at all'}",
            fix="save it with np.savez_compressed(file, x_train=..., y_train=..., x_test=..., y_test=...)",
        )
    images = {key: _images(path, key, arrays[key]) for key in ("x_train", "x_test")}
    numbers = {key: _numbers(path, key, arrays[key]) for key in ("y_train", "y_test")}
    labels = _labels(path, arrays.get("labels"), numbers)
    splits = {}
    for part in ("train", "test"):
        pixels, classes = images[f"x_{part}"], numbers[f"y_{part}"]
        if len(pixels) != len(classes):
            raise DataError(
                f"{path}: x_{part} holds {len(pixels):,} images, y_{part} {len(classes):,} labels",
                fix="give one label per image, in the same order",
            )
        splits[part] = Split(images=to_shape(pixels, shape=shape), labels=classes)
    return Parts(train=splits["train"], test=splits["test"], labels=labels)


def _load(path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The arrays that count, and the names of all there are."""
    with reading(path, kind=".npz", save="np.savez_compressed"):
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it is no zip archive")  # np.load would return a lone array, or try to unpickle
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in (*_REQUIRED, "labels") if key in file.files}, list(file.files)


@contextmanager
def reading(path: Path, *, kind: str, save: str) -> Iterator[None]:
    """What NumPy raises while it reads a .npy or .npz file, as a DataError.

    kind: the suffix of what it should be.  save: what writes a good one.
    """
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise damaged(
            path,
            f"it is no intact {kind} file: {error}",
            fix=f"save it with {save}; arrays of Python objects are not accepted",
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _images(path: Path, key: str, array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape[1:3]:
        raise DataError(
            f"{path}: {key} has the shape {array.shape}",
            why="images are (n, height, width), or (n, height, width, channels) with 1 or 3 channels",
            fix="bring it to that shape, e.g. np.moveaxis(x, 1, -1) if the channels come second",
        )
    if array.dtype == np.uint8:
        return array.astype(np.uint8, copy=False)
    if array.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: {key} is of type {array.dtype}", fix="save pixels as uint8, 0 to 255: x.astype(np.uint8)"
        )
    _check_pixels(path, key, array)
    return array.astype(np.uint8)


def _check_pixels(path: Path, key: str, array: NDArray[Any]) -> None:
    if array.dtype.kind == "f":
        _refuse(path, key, ~np.isfinite(array), array, words="NaN or infinite", fix="find out where they come from")
    fix = "save raw pixels 0 to 255 as uint8; scaling belongs into the model"
    _refuse(path, key, (array < 0) | (array > 255), array, words="outside 0 to 255", fix=fix)
    if array.dtype.kind == "f":
        # Values like 0.5 come from images divided by 255; to guess the factor could be silently wrong.
        fix = "save raw pixels: np.rint(x * 255).astype(np.uint8) if x was divided by 255"
        _refuse(path, key, array != np.rint(array), array, words="no whole numbers", fix=fix)


def _refuse(path: Path, key: str, wrong: NDArray[np.bool_], array: NDArray[Any], *, words: str, fix: str) -> None:
    count = int(np.count_nonzero(wrong))
    if count:
        first = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
        raise DataError(
            f"{path}: {count:,} of {array.size:,} values of {key} are {words}",
            why=f"the first is {array[first]} at {list(first)} (image, row, column, channel)",
            fix=fix,
        )


def _numbers(path: Path, key: str, array: NDArray[Any]) -> NDArray[np.int64]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {key} is {array.dtype} of the shape {array.shape}",
            why="labels are whole numbers, one per image: (n,) integers",
            fix="for one-hot labels save y.argmax(axis=1)",
        )
    return array.astype(np.int64)


def _labels(path: Path, names: NDArray[Any] | None, numbers: dict[str, NDArray[np.int64]]) -> tuple[str, ...]:
    train = numbers["y_train"]
    if names is not None and (names.ndim != 1 or names.dtype.kind not in "US" or len({*names.tolist()}) != len(names)):
        raise DataError(
            f"{path}: labels is {names.dtype} of the shape {names.shape}",
            why="it must be a list of different names, one for each class",
            fix='save it as labels=np.array(["cat", "dog"])',
        )
    count = len(names) if names is not None else int(train.max(initial=-1)) + 1
    for key, array in numbers.items():
        wrong = np.flatnonzero((array < 0) | (array >= count))
        if len(wrong):
            source = "labels names" if names is not None else "y_train has"
            raise DataError(
                f"{path}: {len(wrong):,} of {len(array):,} values of {key} are no class",
                why=f"the first is {int(array[wrong[0]])} at [{int(wrong[0])}]; {source} the classes 0 to {count - 1}",
                fix="correct the labels",
            )
    if names is None:
        return tuple(str(number) for number in range(count))
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist())
