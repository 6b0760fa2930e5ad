"""Reads CIFAR-10's batches, binary and python version. The python version is a pickle and is treated as hostile.

Source: Krizhevsky, "The CIFAR-10 dataset". A binary record is one byte of label and 3,072 bytes of pixels: 1,024
red, 1,024 green, 1,024 blue, each row by row. A python batch is a pickled dictionary with `data`, (n, 3072) uint8
in the same order, and `labels`, a list of n integers.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.data._files import damaged, read_bytes
from emb.data._locate import Located
from emb.data._parts import Parts
from emb.data._pixels import to_shape
from emb.spec.dataset import DataRequest, Split

_PIXEL_BYTES = 3 * 32 * 32
_RECORD_BYTES = 1 + _PIXEL_BYTES
_FIX = "delete it and run `emb data fetch cifar10`, or replace it by an intact copy"


def read_parts(located: Located, request: DataRequest, *, labels: tuple[str, ...]) -> Parts:
    """located.files: the train batches, then the test batch."""
    *train, test = [_read_batch(path, classes=len(labels)) for path in located.files]
    return Parts(train=_join(train, request), test=_join([test], request), labels=labels)


def _join(batches: list[tuple[NDArray[np.uint8], NDArray[np.int64]]], request: DataRequest) -> Split:
    images = np.ascontiguousarray(np.concatenate([pixels for pixels, _ in batches]))
    labels = np.concatenate([numbers for _, numbers in batches])
    return Split(images=to_shape(images, shape=request.shape), labels=labels)


def _read_batch(path: Path, *, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    planes, labels = _read_binary(path) if path.suffix == ".bin" else _read_pickle(path)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        why = f"label {int(wrong[0])} is {int(labels[wrong[0]])}; the classes are 0 to {classes - 1}"
        raise damaged(path, why, fix=_FIX)
    images = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, labels


def _read_binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    content = read_bytes(path)
    if not content or len(content) % _RECORD_BYTES:
        why = f"its {len(content):,} bytes are no whole number of records of {_RECORD_BYTES:,} bytes"
        raise damaged(path, why if content else "it is empty", fix=_FIX)
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, _RECORD_BYTES)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _read_pickle(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        batch = _ArrayUnpickler(io.BytesIO(read_bytes(path)), encoding="bytes").load()
        # Python 2 wrote the keys as bytes.
        fields = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        data, labels = fields["data"], fields["labels"]
        planes = data.to_numpy() if isinstance(data, _PickledArray) else None
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = f"has no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise damaged(path, f"it is no batch of CIFAR-10's python version: {reason}", fix=_FIX) from error
    if planes is None or planes.ndim != 2 or planes.shape[1] != _PIXEL_BYTES or not len(planes):
        raise damaged(path, f"its data is no (n, {_PIXEL_BYTES:,}) array of uint8", fix=_FIX)
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise damaged(path, "its labels are no list of integers", fix=_FIX)
    if len(labels) != len(planes):
        raise damaged(path, f"it holds {len(planes):,} images and {len(labels):,} labels", fix=_FIX)
    return planes, np.array(labels, dtype=np.int64)


class _PickledType:
    """Stands in for numpy.ndarray and numpy.dtype in a pickle: remembers its arguments, does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        """The state of a dtype only adds byte order and fields, which uint8 does not have."""


class _PickledArray:
    """Stands in for a uint8 array in a pickle; becomes one only after everything about it was checked."""

    def __init__(self, shape: Any = None, dtype: Any = None, fortran: Any = None, content: Any = None) -> None:
        self._fields = (shape, dtype, fortran, content)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        self._fields = (shape, dtype, fortran, content)

    def to_numpy(self) -> NDArray[np.uint8]:
        shape, dtype, fortran, content = self._fields
        if not isinstance(dtype, _PickledType) or dtype.arguments[:1] not in (("u1",), (b"u1",)):
            raise ValueError("its array is not of uint8")
        return np.frombuffer(content, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _PickledArray:
    return _PickledArray()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _PickledArray:
    return _PickledArray(shape, dtype, order == "F", content)


def _encode(text: str, encoding: str | bytes) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it encodes bytes as {encoding!r}")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Admits lists, dictionaries, numbers, strings and the stand-ins for arrays. Nothing in the file is executed."""

    _ADMITTED = {  # noqa: RUF012 - read only
        ("numpy", "ndarray"): _PickledType,
        ("numpy", "dtype"): _PickledType,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy.core.numeric", "_frombuffer"): _from_buffer,
        ("numpy._core.numeric", "_frombuffer"): _from_buffer,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image data needs") from None
