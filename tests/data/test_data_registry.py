"""What holds for every data set, and for the functions that the pipeline calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emb import data
from emb.data import DATA
from emb.errors import DataError, SpecError
from emb.spec.dataset import DataRequest

DOWNLOADS = ("cifar10", "fashion-mnist", "mnist")


def test_names() -> None:
    assert set(DATA.names()) >= {"arrays", "cifar10", "digits", "fashion-mnist", "folder", "mnist"}
    assert data.downloadable() == DOWNLOADS


@pytest.mark.parametrize("name", DATA.names())
def test_every_data_set_has_a_summary_and_the_two_functions(name: str) -> None:
    assert DATA.help(name).endswith(".")
    module = DATA.get(name)
    assert callable(module.find)
    assert callable(module.read)


@pytest.mark.parametrize("name", DATA.names())
def test_a_data_set_that_is_not_here_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    located = data.locate(name, DataRequest(directories=(tmp_path,)))
    if name == "digits":
        assert located.found
        return
    assert not located.found
    assert located.directory is None
    with pytest.raises(DataError) as caught:
        data.digest(name, DataRequest(directories=(tmp_path,)))
    assert caught.value.fix
    with pytest.raises(DataError, match=caught.value.what):
        data.load(name, DataRequest(directories=(tmp_path,)))


def test_missing_mnist_names_the_places(tmp_path: Path) -> None:
    request = DataRequest(directories=(tmp_path / "a", tmp_path / "b"))
    with pytest.raises(DataError) as caught:
        data.load("mnist", request)
    assert str(caught.value) == (
        "the data set mnist was not found\n"
        f"  why: looked for mnist/train-images-idx3-ubyte.gz in {tmp_path}/a, {tmp_path}/b\n"
        "  fix: run `emb data fetch mnist`, or put the four idx files of MNIST into DIR/mnist and give --data-dir DIR"
    )


def test_an_incomplete_data_set_names_what_is_missing(mnist_files: Path) -> None:
    (mnist_files / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        data.load("mnist", DataRequest(directories=(mnist_files,)))
    assert caught.value.what == f"the data set mnist is incomplete in {mnist_files}/mnist"
    assert caught.value.why == "missing: t10k-labels-idx1-ubyte.gz"


def test_the_first_complete_directory_wins(mnist_files: Path, tmp_path: Path) -> None:
    (tmp_path / "partial" / "mnist").mkdir(parents=True)
    (tmp_path / "partial" / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"")
    located = data.locate("mnist", DataRequest(directories=(tmp_path / "partial", mnist_files)))
    assert located.directory == mnist_files / "mnist"
    assert located.looked == (tmp_path / "partial" / "mnist", mnist_files / "mnist")
    assert located.total_bytes == sum(file.stat().st_size for file in (mnist_files / "mnist").iterdir())


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(SpecError, match="unknown data set 'minst'") as caught:
        data.locate("minst", DataRequest())
    assert caught.value.fix.startswith("did you mean 'mnist'?")


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMB_DATA_DIR", "/from/environment")
    monkeypatch.setenv("EMB_CACHE_DIR", "/cache")
    assert data.search_directories(tmp_path) == (tmp_path, Path("/from/environment"), Path("/cache/data"))
    monkeypatch.delenv("EMB_DATA_DIR")
    monkeypatch.delenv("EMB_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert data.search_directories(None) == (Path("/xdg/emb/data"),)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert data.search_directories(None) == (Path("/home/someone/.cache/emb/data"),)


def test_a_data_dir_that_is_no_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is no directory"):
        data.search_directories(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["digits", "mnist", "folder"])
def test_the_digest_needs_no_decoder(name: str, mnist_files: Path, image_folder: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from emb.data import digest
from emb.spec.dataset import DataRequest
print(digest({name!r}, DataRequest(directories=(Path({str(mnist_files)!r}),), path=Path({str(image_folder)!r}))))
print([m for m in ("numpy", "PIL", "sklearn", "pooch", "requests", "keras", "tensorflow") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    digest, imported = done.stdout.split("\n")[:2]
    assert imported == "[]"
    request = DataRequest(directories=(mnist_files,), path=image_folder)
    assert data.load(name, request).digest == digest


def test_the_digest_follows_content_and_names_alone(mnist_files: Path, tmp_path: Path) -> None:
    request = DataRequest(directories=(mnist_files,))
    before = data.digest("mnist", request)
    moved = mnist_files.rename(tmp_path / "elsewhere")
    elsewhere = DataRequest(directories=(moved,), shape=(8, 8, 3), seed=5)
    assert data.digest("mnist", elsewhere) == before
    labels = moved / "mnist" / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes() + b"\0")
    assert data.digest("mnist", elsewhere) != before


def test_calibration_images_are_balanced_train_images(mnist_files: Path) -> None:
    dataset = data.load("mnist", DataRequest(directories=(mnist_files,)))
    images = data.calibration_images(dataset, count=20, seed=1)
    assert images.shape == (20, 28, 28, 1)
    assert images.dtype == np.uint8
    keys = {image.tobytes(): int(label) for image, label in zip(*_pairs(dataset), strict=True)}
    found = [keys[image.tobytes()] for image in images]
    assert np.bincount(found).tolist() == [2] * 10
    assert len({image.tobytes() for image in images}) == 20
    assert np.array_equal(images, data.calibration_images(dataset, count=20, seed=1))
    assert not np.array_equal(images, data.calibration_images(dataset, count=20, seed=2))


def _pairs(dataset: data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    return dataset.train.images, dataset.train.labels


@pytest.mark.parametrize("count", [0, -1, 31])
def test_too_many_calibration_images_are_an_error(count: int, mnist_files: Path) -> None:
    dataset = data.load("mnist", DataRequest(directories=(mnist_files,)))
    with pytest.raises(DataError) as caught:
        data.calibration_images(dataset, count=count, seed=0)
    assert str(caught.value) == (
        f"{count} calibration images were asked for; the train split of mnist holds 30\n"
        "  fix: ask for 1 to 30 (--calibration)"
    )
