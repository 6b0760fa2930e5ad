"""A directory per class: splits, stability, and every fault with the name of its file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emb import data
from emb.data._tree import scan
from emb.errors import DataError
from emb.spec.dataset import DataRequest


def _load(root: Path, **fields: Any) -> data.Dataset:
    return data.load("folder", DataRequest(path=root, **fields))


def _fault(root: Path, **fields: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        _load(root, **fields)
    return caught.value


def _where(dataset: data.Dataset) -> dict[tuple[str, int], str]:
    """(class, number of the image) -> split; the number stands in pixel (0, 0)."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {
        (dataset.labels[label], int(image[0, 0, 0])): name
        for name, split in splits.items()
        for image, label in zip(split.images, split.labels, strict=True)
    }


def _save(path: Path, number: int, colour: tuple[int, int, int] = (0, 0, 0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (12, 8), colour)
    image.putpixel((0, 0), (number, number, number))
    image.save(path)


def test_intact(image_folder: Path) -> None:
    dataset = _load(image_folder)
    assert dataset.labels == ("blue", "red")
    assert dataset.shape == (8, 12, 3)
    where = _where(dataset)
    assert len(where) == 20
    assert set(where.values()) == {"train", "validation", "test"}
    for split in (dataset.train, dataset.validation, dataset.test):
        assert set(split.labels.tolist()) == {0, 1}
        blue = split.images[split.labels == 0][0]
        assert blue[4, 4].tolist() == [0, 0, 200]


def test_a_new_image_moves_no_other_one(image_folder: Path) -> None:
    before = _where(_load(image_folder))
    _save(image_folder / "red" / "later" / "new.png", 77)
    after = _where(_load(image_folder))
    assert len(after) == 21
    assert {key: after[key] for key in before} == before


def test_the_seed_moves_validation_and_never_test(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(40):
            _save(tmp_path / name / f"{number}.png", number)
    one, other = (_where(_load(tmp_path, seed=seed, validation_fraction=0.3)) for seed in (0, 1))
    assert one != other
    assert {key for key in one if one[key] == "test"} == {key for key in other if other[key] == "test"}


def test_the_digest_knows_names_and_not_the_place(image_folder: Path, tmp_path: Path) -> None:
    before = data.digest("folder", DataRequest(path=image_folder))
    moved = image_folder.rename(tmp_path / "moved")
    assert data.digest("folder", DataRequest(path=moved)) == before
    (moved / "red").rename(moved / "yellow")
    assert data.digest("folder", DataRequest(path=moved)) != before


def test_splits_of_its_own(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "train", "test", "val")):
        for name in ("b", "a"):
            _save(tmp_path / split / name / f"{number}.png", number)
    dataset = _load(tmp_path)
    assert dataset.labels == ("a", "b")
    assert _where(dataset) == {
        (name, number): split
        for name in ("a", "b")
        for number, split in enumerate(("train", "train", "test", "validation"))
    }


def test_train_gives_validation_if_there_is_none(tmp_path: Path) -> None:
    for number in range(10):
        for name in ("a", "b"):
            _save(tmp_path / "train" / name / f"{number}.png", number)
            _save(tmp_path / "test" / name / f"{number}.png", number + 100)
    where = _where(_load(tmp_path, validation_fraction=0.3))
    assert {number for (_, number), split in where.items() if split == "test"} == set(range(100, 110))
    assert "validation" in where.values()


def test_files_that_are_left_out(image_folder: Path) -> None:
    (image_folder / "README.txt").write_text("pictures")
    (image_folder / ".cache").mkdir()
    (image_folder / "red" / ".DS_Store").write_bytes(b"\0")
    (image_folder / "red" / "Thumbs.db").write_bytes(b"\0")
    assert len(_where(_load(image_folder))) == 20


def test_jpeg_and_any_size(image_folder: Path) -> None:
    Image.new("RGB", (640, 480), (200, 0, 0)).save(image_folder / "red" / "photo.JPG")
    dataset = _load(image_folder, shape=(16, 16, 1))
    assert dataset.shape == (16, 16, 1)
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 21


def test_different_sizes_need_a_shape(image_folder: Path) -> None:
    Image.new("RGB", (5, 4)).save(image_folder / "red" / "small.png")
    assert str(_fault(image_folder)) == (
        "the images have different sizes, and no input shape is given\n"
        f"  why: {image_folder}/blue/0.png is 8x12, {image_folder}/red/small.png is 4x5 (height x width)\n"
        "  fix: give the shape, e.g. --set 'input.shape=[96, 96, 3]'"
    )


def test_grey_images_stay_grey(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(5):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("L", (4, 4), number).save(tmp_path / name / f"{number}.png")
    assert _load(tmp_path).shape == (4, 4, 1)


def test_a_text_file_called_png(image_folder: Path) -> None:
    path = image_folder / "red" / "notes.png"
    path.write_text("not an image")
    for fields in ({}, {"shape": (8, 8, 3)}):
        assert str(_fault(image_folder, **fields)) == (
            f"{path} is no image\n"
            "  why: its content is neither JPEG nor PNG\n"
            "  fix: replace it by an intact JPEG or PNG, or remove it, or build with --skip-bad, which leaves it out"
        )


def test_a_truncated_jpeg(image_folder: Path) -> None:
    path = image_folder / "red" / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    fault = _fault(image_folder, shape=(8, 8, 3))
    assert fault.what == f"{path} is a damaged image"
    assert fault.why.startswith("image file is truncated")


def test_a_corrupt_png(image_folder: Path) -> None:
    path = image_folder / "red" / "3.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 0xFF  # inside the compressed pixels, or their checksum
    path.write_bytes(content)
    assert _fault(image_folder, shape=(8, 8, 3)).what == f"{path} is a damaged image"


def test_an_empty_image_file(image_folder: Path) -> None:
    path = image_folder / "blue" / "empty.jpg"
    path.write_bytes(b"")
    assert _fault(image_folder).what == f"{path} is no image"


def test_an_image_of_another_format(image_folder: Path) -> None:
    Image.new("RGB", (12, 8)).save(image_folder / "red" / "a.gif")
    assert str(_fault(image_folder)) == (
        f"1 files in {image_folder}/red are no JPEG or PNG: a.gif\n"
        "  why: images end in .jpg, .jpeg or .png\n"
        "  fix: convert or remove them"
    )
    (image_folder / "red" / "a.gif").rename(image_folder / "red" / "a.png")
    assert _fault(image_folder).what == f"{image_folder}/red/a.png is no image"


def test_a_dangling_link(image_folder: Path) -> None:
    path = image_folder / "red" / "gone.png"
    path.symlink_to(image_folder / "nowhere.png")
    assert _fault(image_folder).why == "no such file or directory"


def test_an_empty_class(image_folder: Path) -> None:
    (image_folder / "green").mkdir()
    assert str(_fault(image_folder)) == (
        f"the class directory {image_folder}/green is empty\n  fix: put images of the class into it, or remove it"
    )


def test_one_class(image_folder: Path) -> None:
    (image_folder / "red").rename(image_folder.parent / "red")
    assert _fault(image_folder).what == f"{image_folder} has one class only: 'blue'"


def test_a_class_that_was_never_trained(tmp_path: Path) -> None:
    for split, names in (("train", "ab"), ("test", "abc")):
        for name in names:
            _save(tmp_path / split / name / "1.png", 1)
    assert str(_fault(tmp_path)) == (
        f"the test split of {tmp_path} has classes that train has not: c\n"
        "  why: a class that was never trained cannot be recognised\n"
        "  fix: add them to train, or remove them from test"
    )


def test_train_without_test(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in "ab":
            _save(tmp_path / split / name / "1.png", 1)
    assert _fault(tmp_path).what == f"{tmp_path} has train and no test directory"


def test_two_names_of_one_split(tmp_path: Path) -> None:
    for split in ("train", "test", "val", "validation"):
        for name in "ab":
            _save(tmp_path / split / name / "1.png", 1)
    assert str(_fault(tmp_path)) == (
        f"{tmp_path} has both a val and a validation directory\n"
        "  why: they are two names of one split\n"
        "  fix: put the images of one into the other"
    )


def test_images_are_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = ("a/x.png", "a/x/2.png", "a/x/10.PNG", "a/x-y.png", "a-b/z.jpg", "a b/z.jpeg", "a/\u00e9.png")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    tree = scan(tmp_path)
    assert list(tree) == sorted(tmp_path / name for name in names)
    assert [tree[index] for index in range(-7, 0)] == list(tree[:]) == [*tree[:3], *tree[3:]]
    assert tree[::-2] == list(tree)[::-2]
    assert [tree.root / tree.relative(index) for index in range(len(tree))] == list(tree)
    for index in (7, -8):
        with pytest.raises(IndexError):
            tree[index]


def test_splits_beside_classes(tmp_path: Path) -> None:
    for split in ("train", "test", "cars"):
        _save(tmp_path / split / "a" / "1.png", 1)
    fault = _fault(tmp_path)
    assert fault.what == f"{tmp_path} mixes splits and classes"
    assert fault.why == "beside train and test there are cars"


def test_images_without_a_class(image_folder: Path, tmp_path: Path) -> None:
    for number in range(5):
        _save(image_folder / f"{number}.png", number)
    assert _fault(image_folder).what == (
        f"5 images in {image_folder} belong to no class: 0.png, 1.png, 2.png and 2 more"
    )
    _save(tmp_path / "flat" / "1.png", 1)
    fault = _fault(tmp_path / "flat")
    assert fault.what == f"{tmp_path}/flat has no class directories"
    assert fault.why == "there are 1 images directly in it"


def test_no_directory(image_folder: Path) -> None:
    assert str(_fault(image_folder / "nowhere")) == (
        f"there is no directory {image_folder}/nowhere\n"
        "  why: it is where the images are looked for, one subdirectory for each class\n"
        "  fix: name the place where yours are: --data DIR"
    )
    assert _fault(image_folder / "red" / "1.png").what == f"{image_folder}/red/1.png is no directory"


def test_too_few_images_for_three_splits(tmp_path: Path) -> None:
    _save(tmp_path / "a" / "1.png", 1)
    _save(tmp_path / "b" / "1.png", 1)
    assert str(_fault(tmp_path)) == (
        "the validation split of folder holds no images\n"
        "  fix: add images: train, validation and test need at least one each"
    )


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX are needed")
def test_linked_classes_are_followed(image_folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("red", "blue"):
        (linked / name).symlink_to(image_folder / name)
    assert len(_where(_load(linked))) == 20
