"""The data set that needs no download."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from emb import data
from emb.data._locate import Located
from emb.data.digits import read
from emb.errors import DataError
from emb.spec.dataset import DataRequest


def test_digits() -> None:
    dataset = data.load("digits", DataRequest())
    assert dataset.shape == (28, 28, 1)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1294, 144, 359)
    assert dataset.labels == tuple("0123456789")
    assert np.bincount(dataset.test.labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert dataset.train.images.min() == 0
    assert dataset.train.images.max() == 255


def test_the_images_are_those_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.datasets")
    own = data.load("digits", DataRequest(shape=(8, 8, 1)))
    images = np.concatenate([own.train.images, own.validation.images, own.test.images])[..., 0]
    labels = np.concatenate([own.train.labels, own.validation.labels, own.test.labels])
    theirs = sklearn.load_digits()
    expected = np.floor(theirs.images * 255 / 16 + 0.5).astype(np.uint8)
    ours = sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))
    assert ours == sorted((int(label), image.tobytes()) for image, label in zip(expected, theirs.target, strict=True))


def test_the_test_split_depends_on_nothing() -> None:
    one = data.load("digits", DataRequest(seed=1))
    other = data.load("digits", DataRequest(seed=2, validation_fraction=0.3))
    assert np.array_equal(one.test.images, other.test.images)
    assert len(other.validation) == 431


def test_any_shape_is_scaled_from_the_original() -> None:
    assert data.load("digits", DataRequest(shape=(32, 32, 3))).shape == (32, 32, 3)


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b""), gzip.compress(b"1,2,3\n"), gzip.compress(b"17," * 64 + b"0\n")],
    ids=["text", "empty", "three columns", "too bright"],
)
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(Located(name="digits", directory=tmp_path, files=(path,)), DataRequest())
    assert caught.value.what == f"{path} is damaged"
    assert caught.value.fix.endswith("pip install --force-reinstall scikit-learn")
