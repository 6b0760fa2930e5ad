"""CIFAR-10 in both versions, and the pickles that must not be trusted."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb import data
from emb.errors import DataError
from emb.spec.dataset import DataRequest

NAMES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def _batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """name -> (planes (20, 3072) uint8, labels (20,))."""
    rng = np.random.default_rng(0)
    return {name: (rng.integers(0, 256, (20, 3072), dtype=np.uint8), np.arange(20) % 10) for name in NAMES}


def _write_binary(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, (planes, labels) in _batches().items():
        records = np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def _write_python(folder: Path, *, protocol: int) -> None:
    folder.mkdir(parents=True)
    for name, (planes, labels) in _batches().items():
        batch = {b"data": planes, b"labels": labels.tolist(), b"batch_label": b"a batch", b"filenames": [b"a.png"] * 20}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))


def _load(root: Path, **fields: Any) -> data.Dataset:
    return data.load("cifar10", DataRequest(directories=(root,), **fields))


def _fault(root: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        _load(root)
    return caught.value


@pytest.mark.parametrize("folder", ["cifar10", "cifar10/cifar-10-batches-bin"])
def test_binary_version(folder: str, tmp_path: Path) -> None:
    _write_binary(tmp_path / folder)
    dataset = _load(tmp_path)
    assert dataset.shape == (32, 32, 3)
    assert dataset.labels[0] == "airplane"
    assert dataset.labels[9] == "truck"
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (90, 10, 20)
    planes, labels = _batches()["test_batch"]
    assert dataset.test.labels.tolist() == labels.tolist()
    image = dataset.test.images[3]
    # Row 5, column 7: red is the first plane of 1,024 bytes, then green, then blue.
    assert image[5, 7].tolist() == [int(planes[3, plane * 1024 + 5 * 32 + 7]) for plane in range(3)]
    assert dataset.train.images.flags.c_contiguous


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("folder", ["cifar10", "cifar10/cifar-10-batches-py"])
def test_python_version_equals_the_binary_one(folder: str, protocol: int, tmp_path: Path) -> None:
    _write_binary(tmp_path / "binary" / "cifar10")
    _write_python(tmp_path / "python" / folder, protocol=protocol)
    binary, python = _load(tmp_path / "binary"), _load(tmp_path / "python")
    for one, other in (
        (binary.train, python.train),
        (binary.validation, python.validation),
        (binary.test, python.test),
    ):
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)


def _array_of_python_2(planes: bytes, rows: int) -> bytes:
    """The opcodes with which Python 2 and numpy 1 wrote the published files: protocol 2, byte strings."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tU\x01btR"
        b"(K\x01(M" + rows.to_bytes(2, "little") + b"M\0\x0ctcnumpy\ndtype\n(U\x02u1K\0K\x01tR"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T"
        + len(planes).to_bytes(4, "little")
        + planes
        + b"tb"
    )


def test_python_version_as_published(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for name, (planes, labels) in _batches().items():
        numbers = b"".join(b"K" + bytes([label]) for label in labels.tolist())
        array = _array_of_python_2(planes.tobytes(), len(planes))
        (folder / name).write_bytes(b"\x80\x02}(U\x06labels](" + numbers + b"eU\x04data" + array + b"u.")
    dataset = _load(tmp_path)
    planes, _ = _batches()["test_batch"]
    assert np.array_equal(dataset.test.images, planes.reshape(20, 3, 32, 32).transpose(0, 2, 3, 1))


class _Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("exit 1",))


def test_a_pickle_that_runs_a_program_is_refused(tmp_path: Path) -> None:
    _write_python(tmp_path / "cifar10", protocol=2)
    path = tmp_path / "cifar10" / "data_batch_2"
    path.write_bytes(pickle.dumps({b"data": _Attack(), b"labels": []}))
    assert str(_fault(tmp_path)) == (
        f"{path} is damaged\n"
        "  why: it is no batch of CIFAR-10's python version: it asks for posix.system, which no image data needs\n"
        "  fix: delete it and run `emb data fetch cifar10`, or replace it by an intact copy"
    )


@pytest.mark.parametrize(
    ("batch", "why"),
    [
        ({b"labels": [0]}, "it is no batch of CIFAR-10's python version: has no 'data'"),
        ([1, 2], "it is no batch of CIFAR-10's python version: 'list' object has no attribute 'items'"),
        ({b"data": b"abc", b"labels": [0]}, "its data is no (n, 3,072) array of uint8"),
        ({b"data": np.zeros((1, 3071), np.uint8), b"labels": [0]}, "its data is no (n, 3,072) array of uint8"),
        (
            {b"data": np.zeros((1, 3072), np.float32), b"labels": [0]},
            "it is no batch of CIFAR-10's python version: its array is not of uint8",
        ),
        (
            {b"data": np.array([[object]]), b"labels": [0]},
            "it is no batch of CIFAR-10's python version: it asks for builtins.object, which no image data needs",
        ),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "it holds 2 images and 1 labels"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["cat"]}, "its labels are no list of integers"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "label 0 is 10; the classes are 0 to 9"),
    ],
)
def test_other_pickles_are_refused(batch: Any, why: str, tmp_path: Path) -> None:
    _write_python(tmp_path / "cifar10", protocol=2)
    (tmp_path / "cifar10" / "test_batch").write_bytes(pickle.dumps(batch))
    fault = _fault(tmp_path)
    assert fault.what == f"{tmp_path}/cifar10/test_batch is damaged"
    assert fault.why == why


def test_a_truncated_pickle(tmp_path: Path) -> None:
    _write_python(tmp_path / "cifar10", protocol=4)
    path = tmp_path / "cifar10" / "data_batch_5"
    path.write_bytes(path.read_bytes()[:500])
    assert _fault(tmp_path).what == f"{path} is damaged"


def test_a_binary_batch_of_wrong_length(tmp_path: Path) -> None:
    _write_binary(tmp_path / "cifar10")
    path = tmp_path / "cifar10" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    fault = _fault(tmp_path)
    assert fault.what == f"{path} is damaged"
    assert fault.why == "its 61,459 bytes are no whole number of records of 3,073 bytes"
    path.write_bytes(b"")
    assert _fault(tmp_path).why == "it is empty"


def test_a_binary_label_out_of_range(tmp_path: Path) -> None:
    _write_binary(tmp_path / "cifar10")
    path = tmp_path / "cifar10" / "test_batch.bin"
    content = bytearray(path.read_bytes())
    content[3073 * 4] = 255
    path.write_bytes(content)
    assert _fault(tmp_path).why == "label 4 is 255; the classes are 0 to 9"
