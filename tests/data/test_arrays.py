"""Arrays in an .npz file: what is accepted, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb import data
from emb.errors import DataError
from emb.spec.dataset import DataRequest


def _arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8),
        "y_train": np.arange(30) % 3,
        "x_test": rng.integers(0, 256, (9, 6, 5, 3), dtype=np.uint8),
        "y_test": np.arange(9) % 3,
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def _save(path: Path, **changes: Any) -> Path:
    np.savez(path, **_arrays(**changes))
    return path


def _load(path: Path, **fields: Any) -> data.Dataset:
    return data.load("arrays", DataRequest(path=path, **fields))


def _fault(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        _load(path)
    return caught.value


def test_intact(tmp_path: Path) -> None:
    dataset = _load(_save(tmp_path / "a.npz"))
    assert dataset.shape == (6, 5, 3)
    assert dataset.labels == ("0", "1", "2")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (27, 3, 9)
    assert np.array_equal(dataset.test.images, _arrays()["x_test"])


def test_names_of_classes(tmp_path: Path) -> None:
    assert _load(_save(tmp_path / "a.npz", labels=np.array(["cat", "dog", "ant"]))).labels == ("cat", "dog", "ant")


def test_grey_floats_and_columns_of_labels(tmp_path: Path) -> None:
    x = np.arange(30 * 6 * 5).reshape(30, 6, 5) % 256
    path = _save(
        tmp_path / "a.npz",
        x_train=x.astype(np.float32),
        x_test=x[:9].astype(np.int64),
        y_train=(np.arange(30) % 3).astype(np.uint8)[:, None],
    )
    dataset = _load(path)
    assert dataset.shape == (6, 5, 1)
    assert np.array_equal(dataset.test.images[..., 0], x[:9])


def test_another_shape(tmp_path: Path) -> None:
    assert _load(_save(tmp_path / "a.npz"), shape=(4, 4, 1)).shape == (4, 4, 1)


def test_the_digest_is_that_of_the_file_whatever_its_name(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.npz")
    before = data.digest("arrays", DataRequest(path=path))
    assert data.digest("arrays", DataRequest(path=path.rename(tmp_path / "b.npz"))) == before


def _with(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    changed = array.astype(np.float32)
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("changes", "what", "why"),
    [
        (
            {"x_test": None, "y_test": None, "images": np.zeros(3)},
            "has no x_test, y_test",
            "it has images, x_train, y_train",
        ),
        (
            {"x_train": _with(_arrays()["x_train"], (2, 1, 0, 2), np.nan)},
            "1 of 2,700 values of x_train are NaN or infinite",
            "the first is nan at [2, 1, 0, 2] (image, row, column, channel)",
        ),
        (
            {"x_test": _with(_arrays()["x_test"], (8, 5, 4, 2), -np.inf)},
            "1 of 810 values of x_test are NaN or infinite",
            "the first is -inf at [8, 5, 4, 2] (image, row, column, channel)",
        ),
        (
            {"x_train": np.zeros((30, 3, 6, 5), np.uint8)},
            "x_train has the shape (30, 3, 6, 5)",
            "images are (n, height, width), or (n, height, width, channels) with 1 or 3 channels",
        ),
        ({"x_train": np.zeros((30, 6, 5, 3), np.complex64)}, "x_train is of type complex64", ""),
        (
            {"y_train": np.eye(30, 3)},
            "y_train is float64 of the shape (30, 3)",
            "labels are whole numbers, one per image: (n,) integers",
        ),
        ({"y_test": np.zeros(8, np.int64)}, "x_test holds 9 images, y_test 8 labels", ""),
        (
            {"y_test": np.full(9, 3)},
            "9 of 9 values of y_test are no class",
            "the first is 3 at [0]; y_train has the classes 0 to 2",
        ),
        (
            {"y_train": np.arange(30) % 3 - 1},
            "10 of 30 values of y_train are no class",
            "the first is -1 at [0]; y_train has the classes 0 to 1",
        ),
        (
            {"labels": np.array(["cat", "dog"])},
            "10 of 30 values of y_train are no class",
            "the first is 2 at [2]; labels names the classes 0 to 1",
        ),
        (
            {"labels": np.array(["cat", "cat", "dog"])},
            "labels is <U3 of the shape (3,)",
            "it must be a list of different names, one for each class",
        ),
        (
            {"labels": np.array(["cat", "dog"], dtype=object)},
            "is damaged",
            "it is no intact .npz file: Object arrays cannot be loaded when allow_pickle=False",
        ),
    ],
)
def test_faults(changes: dict[str, Any], what: str, why: str, tmp_path: Path) -> None:
    path = _save(tmp_path / "a.npz", **changes)
    fault = _fault(path)
    assert fault.what in (f"{path}: {what}", f"{path} {what}")
    assert fault.why == why


def test_pixels_out_of_range_are_counted(tmp_path: Path) -> None:
    pixels = _arrays()["x_test"].astype(np.int32)
    pixels[1, 2, 3, 1], pixels[4, 0, 0, 0] = 256, -1
    path = _save(tmp_path / "a.npz", x_test=pixels)
    assert str(_fault(path)) == (
        f"{path}: 2 of 810 values of x_test are outside 0 to 255\n"
        "  why: the first is 256 at [1, 2, 3, 1] (image, row, column, channel)\n"
        "  fix: save raw pixels 0 to 255 as uint8; scaling belongs into the model"
    )


def test_scaled_pixels_are_not_guessed_at(tmp_path: Path) -> None:
    pixels = np.zeros((30, 6, 5, 3), np.float32)
    pixels[0, 5, 4, 2:] = 0.5
    path = _save(tmp_path / "a.npz", x_train=pixels)
    assert str(_fault(path)) == (
        f"{path}: 1 of 2,700 values of x_train are no whole numbers\n"
        "  why: the first is 0.5 at [0, 5, 4, 2] (image, row, column, channel)\n"
        "  fix: save raw pixels: np.rint(x * 255).astype(np.uint8) if x was divided by 255"
    )


def test_one_class(tmp_path: Path) -> None:
    fault = _fault(_save(tmp_path / "a.npz", y_train=np.zeros(30, int), y_test=np.zeros(9, int)))
    assert fault.what == "arrays has one class only: '0'"


def test_different_shapes_of_train_and_test(tmp_path: Path) -> None:
    fault = _fault(_save(tmp_path / "a.npz", x_test=np.zeros((9, 6, 6, 3), np.uint8)))
    assert fault.what == "the splits of arrays have images of different shapes"
    assert fault.why == "one has 6x5x3, another 6x6x3 (height x width x channels)"


@pytest.mark.parametrize("part", ["train", "test"])
def test_no_images(part: str, tmp_path: Path) -> None:
    empty = {f"x_{part}": np.zeros((0, 6, 5, 3), np.uint8), f"y_{part}": np.zeros(0, int)}
    if part == "train":
        empty["y_test"] = np.zeros(0, int)
        empty["x_test"] = np.zeros((0, 6, 5, 3), np.uint8)
    assert _fault(_save(tmp_path / "a.npz", **empty)).what == f"the {part} split of arrays holds no images"


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_text("x_train,y_train\n")
    assert _fault(path).what == f"{path} is damaged"
    np.save(tmp_path / "a.npy", np.zeros(3))
    assert _fault(tmp_path / "a.npy").why == "it is no intact .npz file: it is no zip archive"
    _save(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert _fault(path).what == f"{path} is damaged"


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.npz")
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    assert _fault(path).why == "it is no intact .npz file: Bad CRC-32 for file 'x_train.npy'"


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    assert str(_fault(tmp_path)) == (
        f"{tmp_path} is no file\n  why: it is a directory\n"
        "  fix: name an .npz file; for a directory of images choose the data set folder"
    )
    assert _fault(tmp_path / "b.npz").why == "there is no such file"
