"""MNIST and its descendants: intact files, and every way in which a file can be wrong."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from emb import data
from emb.data.fashion_mnist import LABELS
from emb.errors import DataError
from emb.spec.dataset import DataRequest

FIX = "delete it and run `emb data fetch mnist`, or replace it by an intact copy"
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
Idx = Callable[[np.ndarray], bytes]


def _load(directory: Path, **fields: object) -> data.Dataset:
    return data.load("mnist", DataRequest(directories=(directory,), **fields))


def _fault(directory: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        _load(directory)
    return caught.value


def test_intact(mnist_files: Path) -> None:
    dataset = _load(mnist_files, validation_fraction=0.25)
    assert dataset.shape == (28, 28, 1)
    assert dataset.labels == tuple("0123456789")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (30, 10, 20)
    assert np.bincount(dataset.validation.labels).tolist() == [1] * 10
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert split.images.flags.c_contiguous
    seen = [image.tobytes() for split in (dataset.train, dataset.validation, dataset.test) for image in split.images]
    assert len(set(seen)) == 60


def test_plain_files_give_the_same_images(mnist_files: Path) -> None:
    zipped = _load(mnist_files)
    for path in (mnist_files / "mnist").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    plain = _load(mnist_files)
    assert np.array_equal(plain.train.images, zipped.train.images)
    assert plain.digest != zipped.digest


def test_the_seed_decides_validation_and_never_test(mnist_files: Path) -> None:
    one, same, other = (_load(mnist_files, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.validation.images, same.validation.images)
    assert not np.array_equal(one.validation.images, other.validation.images)
    assert np.array_equal(one.test.images, other.test.images)


def test_another_shape(mnist_files: Path) -> None:
    dataset = _load(mnist_files, shape=(14, 20, 3))
    assert dataset.shape == (14, 20, 3)
    assert np.array_equal(dataset.test.images[..., 0], dataset.test.images[..., 2])


def test_fashion_mnist_has_its_own_folder_and_labels(mnist_files: Path) -> None:
    (mnist_files / "mnist").rename(mnist_files / "fashion-mnist")
    dataset = data.load("fashion-mnist", DataRequest(directories=(mnist_files,)))
    assert dataset.labels == LABELS
    assert len(LABELS) == 10
    assert not data.locate("mnist", DataRequest(directories=(mnist_files,))).found


def test_truncated_gzip(mnist_files: Path) -> None:
    path = mnist_files / "mnist" / TRAIN_IMAGES
    path.write_bytes(path.read_bytes()[:1000])
    assert str(_fault(mnist_files)) == (
        f"{path} is damaged\n  why: the gzip stream of 1,000 bytes is truncated\n  fix: {FIX}"
    )


def test_corrupt_gzip(mnist_files: Path) -> None:
    path = mnist_files / "mnist" / TRAIN_IMAGES
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF  # the checksum at the end of the stream
    path.write_bytes(content)
    fault = _fault(mnist_files)
    assert fault.what == f"{path} is damaged"
    assert fault.why.startswith("it is no intact gzip file: CRC check failed")


def test_no_gzip_at_all(mnist_files: Path) -> None:
    (mnist_files / "mnist" / TRAIN_LABELS).write_text("<html>Not found</html>")
    assert _fault(mnist_files).why.startswith("it is no intact gzip file: Not a gzipped file")


def test_truncated_idx(mnist_files: Path, idx: Idx) -> None:
    path = mnist_files / "mnist" / TRAIN_IMAGES
    path.write_bytes(gzip.compress(idx(np.zeros((40, 28, 28), np.uint8))[:-1]))
    assert _fault(mnist_files).why == "its header promises 40x28x28 = 31,360 bytes, 31,359 follow"


def test_too_long_idx(mnist_files: Path, idx: Idx) -> None:
    path = mnist_files / "mnist" / TRAIN_LABELS
    path.write_bytes(gzip.compress(idx(np.zeros(40, np.uint8)) + b"\0\0"))
    assert _fault(mnist_files).why == "its header promises 40 = 40 bytes, 42 follow"


def test_header_cut_off(mnist_files: Path) -> None:
    (mnist_files / "mnist" / TRAIN_IMAGES).write_bytes(gzip.compress(b"\0\0\x08\x03\0"))
    assert _fault(mnist_files).why == "it ends after 5 bytes, inside the header of 16"


def test_wrong_magic_number(mnist_files: Path, idx: Idx) -> None:
    (mnist_files / "mnist" / TRAIN_IMAGES).write_bytes(gzip.compress(idx(np.arange(40, dtype=np.uint8))))
    assert _fault(mnist_files).why == "its magic number is 0x00000801 instead of 0x00000803"


def test_wrong_size_of_images(mnist_files: Path, idx: Idx) -> None:
    path = mnist_files / "mnist" / TRAIN_IMAGES
    path.write_bytes(gzip.compress(idx(np.zeros((40, 28, 27), np.uint8))))
    assert _fault(mnist_files).why == "its images are 28x27 instead of 28x28"


def test_more_images_than_labels(mnist_files: Path, idx: Idx) -> None:
    path = mnist_files / "mnist" / TRAIN_LABELS
    path.write_bytes(gzip.compress(idx(np.zeros(39, np.uint8))))
    assert _fault(mnist_files).what == (
        f"{mnist_files}/mnist/{TRAIN_IMAGES} holds 40 images, {TRAIN_LABELS} beside it 39 labels"
    )


def test_label_out_of_range(mnist_files: Path, idx: Idx) -> None:
    labels = np.arange(40, dtype=np.uint8) % 10
    labels[7] = 10
    (mnist_files / "mnist" / TRAIN_LABELS).write_bytes(gzip.compress(idx(labels)))
    fault = _fault(mnist_files)
    assert fault.what == f"{mnist_files}/mnist/{TRAIN_LABELS} is damaged"
    assert fault.why == "label 7 is 10; the classes are 0 to 9"


def test_no_images(mnist_files: Path, idx: Idx) -> None:
    (mnist_files / "mnist" / TRAIN_IMAGES).write_bytes(gzip.compress(idx(np.zeros((0, 28, 28), np.uint8))))
    (mnist_files / "mnist" / TRAIN_LABELS).write_bytes(gzip.compress(idx(np.zeros(0, np.uint8))))
    assert _fault(mnist_files).what == "the train split of mnist holds no images"


def test_one_class(mnist_files: Path, idx: Idx) -> None:
    (mnist_files / "mnist" / TRAIN_LABELS).write_bytes(gzip.compress(idx(np.full(40, 4, np.uint8))))
    assert str(_fault(mnist_files)) == (
        "mnist has one class only: '4'\n"
        "  why: a classifier needs at least two classes to choose from\n"
        "  fix: add images of a second class"
    )


def test_a_class_without_train_images(mnist_files: Path, idx: Idx) -> None:
    labels = np.arange(40, dtype=np.uint8) % 8
    (mnist_files / "mnist" / TRAIN_LABELS).write_bytes(gzip.compress(idx(labels)))
    assert _fault(mnist_files).what == "mnist has no train images of '8', '9'"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX are needed")
def test_permission_denied(mnist_files: Path) -> None:
    path = mnist_files / "mnist" / TRAIN_IMAGES
    with _forbidden(path):
        fault = _fault(mnist_files)
    assert str(fault) == (
        f"{path} cannot be read\n  why: permission denied\n  fix: check that it exists and that you may read it"
    )


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX are needed")
def test_a_directory_that_may_not_be_searched(mnist_files: Path) -> None:
    folder = mnist_files / "mnist"
    with _forbidden(folder):
        fault = _fault(mnist_files)
    assert fault.what == f"{folder} cannot be searched"
    assert fault.why == "permission denied"


@contextmanager
def _forbidden(path: Path) -> Iterator[None]:
    """Nobody may read `path`; root, who may read everything, becomes `nobody` meanwhile."""
    mode = path.stat().st_mode
    is_root = os.geteuid() == 0
    if is_root:
        for parent in path.parents:
            if parent.name.startswith("pytest-of-"):
                break
            parent.chmod(0o755)
        parent.chmod(0o755)
    path.chmod(0)
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        path.chmod(mode)


@pytest.mark.mnist
@pytest.mark.skipif("EMB_DATA_DIR" not in os.environ, reason="EMB_DATA_DIR is unset: the real MNIST is needed")
def test_the_real_mnist() -> None:
    request = DataRequest(directories=data.search_directories(None), validation_fraction=0.1)
    dataset = data.load("mnist", request)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (54_000, 6_000, 10_000)
    train = np.bincount(np.concatenate([dataset.train.labels, dataset.validation.labels]))
    assert train.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(dataset.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The mean of all 60,000 train images is 0.1307 of 255, as every paper states.
    total = int(dataset.train.images.sum(dtype=np.int64)) + int(dataset.validation.images.sum(dtype=np.int64))
    assert round(total / (60_000 * 784 * 255), 4) == 0.1307
