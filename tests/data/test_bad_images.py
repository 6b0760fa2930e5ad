"""One image that cannot be decoded, among thousands: named, or left out and named if that was asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emb import data
from emb.data import _facts, _folder, _pixels
from emb.data._streamed import StreamedImages
from emb.errors import DataError
from emb.spec.dataset import DataRequest, Dataset


@pytest.fixture(scope="module")
def crowd(many_images: Callable[[int], Path]) -> Path:
    """10,000 intact images; each test leaves them as they were."""
    return many_images(10_000)


def _truncated() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = Path(os.environ["EMB_CACHE_DIR"]) / "whole.jpg"
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(noise).save(path)
    return path.read_bytes()[:1000]


# File name, its content, and how the error goes on behind its path.
BAD = {
    "truncated": ("zz-truncated.jpg", _truncated, "is a damaged image"),
    "text": ("zz-text.png", lambda: b"no image at all", "is no image"),
    "empty": ("zz-empty.jpg", lambda: b"", "is no image"),
}


def _load(root: Path, **fields: Any) -> Dataset:
    return data.load("folder", DataRequest(**{"path": root, "shape": (8, 8, 3), **fields}))


def _count(dataset: Dataset) -> int:
    return sum(map(len, (dataset.train, dataset.validation, dataset.test)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
def test_one_bad_image_among_ten_thousand_is_named(kind: str, crowd: Path) -> None:
    name, content, words = BAD[kind]
    path = crowd / "class-4" / name
    path.write_bytes(content())
    try:
        with pytest.raises(DataError) as caught:
            _load(crowd)
    finally:
        path.unlink()
    assert caught.value.what == f"{path} {words}"
    assert caught.value.fix == (
        "replace it by an intact JPEG or PNG, or remove it, or build with --skip-bad, which leaves it out"
    )


@pytest.mark.slow
def test_bad_images_are_left_out_if_that_was_asked_for(crowd: Path) -> None:
    intact = _load(crowd, skip_bad=True)
    assert (intact.notes, _count(intact)) == ((), 10_000)
    paths = [crowd / f"class-{number}" / name for number, (name, _, _) in enumerate(BAD.values())]
    for path, (_, content, _) in zip(paths, BAD.values(), strict=True):
        path.write_bytes(content())
    try:
        dataset = _load(crowd, skip_bad=True)
    finally:
        for path in paths:
            path.unlink()
    assert dataset.notes == (
        "3 of 10,003 images cannot be decoded, left out by --skip-bad: "
        "class-0/zz-truncated.jpg, class-1/zz-text.png, class-2/zz-empty.jpg",
    )
    assert dataset.digest != intact.digest
    # The others are where they were.
    for one, other in zip(*((x.train, x.validation, x.test) for x in (dataset, intact)), strict=True):
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.images, other.images)


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_folder, "IN_MEMORY_BYTES", 0)


@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize("kind", ["text", "empty"])
def test_streamed_images_have_their_headers_read_at_once(kind: str, image_folder: Path) -> None:
    name, content, words = BAD[kind]
    (image_folder / "red" / name).write_bytes(content())
    with pytest.raises(DataError, match=f"{name} {words}"):
        _load(image_folder)


@pytest.mark.usefixtures("streaming")
def test_streamed_images_with_bad_pixels_are_named_when_they_are_read(image_folder: Path) -> None:
    name, content, words = BAD["truncated"]
    (image_folder / "red" / name).write_bytes(content())
    dataset = _load(image_folder)
    assert _count(dataset) == 21
    with pytest.raises(DataError, match=f"{name} {words}") as caught:
        [split.images[:] for split in (dataset.train, dataset.validation, dataset.test)]
    assert "--skip-bad" in caught.value.fix


@pytest.mark.usefixtures("streaming")
def test_streamed_images_are_all_tried_before_any_is_left_out(image_folder: Path) -> None:
    for name, content, _ in BAD.values():
        (image_folder / "red" / name).write_bytes(content())
    dataset = _load(image_folder, skip_bad=True)
    assert _count(dataset) == 20
    assert len(dataset.notes) == 1
    for split in (dataset.train, dataset.validation, dataset.test):
        assert isinstance(split.images, StreamedImages)
        assert len(split.images[:]) == len(split)


def test_the_first_three_are_named(image_folder: Path) -> None:
    for number in range(5):
        (image_folder / "red" / f"bad-{number}.png").write_bytes(b"")
    assert _load(image_folder, skip_bad=True).notes == (
        "5 of 25 images cannot be decoded, left out by --skip-bad: "
        "red/bad-0.png, red/bad-1.png, red/bad-2.png and 2 more",
    )


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes are Linux's")
def test_a_bad_image_may_have_a_name_that_is_no_utf_8(image_folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(image_folder) + b"/red/\xff.png")).write_bytes(b"")
    note = "1 of 21 images cannot be decoded, left out by --skip-bad: red/\ufffd.png"
    assert _load(image_folder, skip_bad=True).notes == (note,)


def test_the_common_shape_is_that_of_the_good_ones(image_folder: Path) -> None:
    (image_folder / "blue" / "0.png").write_bytes(b"")
    assert _load(image_folder, shape=None, skip_bad=True).shape == (8, 12, 3)


def test_a_class_that_loses_all_its_images_is_an_error(image_folder: Path) -> None:
    for path in (image_folder / "red").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        _load(image_folder, skip_bad=True)
    assert str(caught.value) == (
        f"no image of the class 'red' in {image_folder}/red can be decoded\n"
        "  why: --skip-bad would leave out all 10; the first: "
        f"{image_folder}/red/0.png is no image: its content is neither JPEG nor PNG\n"
        "  fix: give intact images of it, or remove its directory"
    )


def test_a_file_that_cannot_be_read_is_no_bad_image(image_folder: Path) -> None:
    (image_folder / "red" / "gone.png").symlink_to(image_folder / "nowhere.png")
    with pytest.raises(DataError) as caught:
        _load(image_folder, skip_bad=True)
    assert caught.value.what == f"{image_folder}/red/gone.png cannot be read"


def test_an_image_is_tried_once(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_facts, "SETTLED_NS", 0)
    (image_folder / "red" / "bad.png").write_bytes(b"")
    before = _load(image_folder, skip_bad=True)
    tried: list[Path] = []
    monkeypatch.setattr(_folder, "fault", lambda path: tried.append(path) or _pixels.fault(path))
    again = _load(image_folder, skip_bad=True)
    assert tried == []
    assert again.notes == before.notes != ()
    Image.new("RGB", (12, 8)).save(image_folder / "red" / "bad.png")
    assert _load(image_folder, skip_bad=True).notes == ()
    assert tried == [image_folder / "red" / "bad.png"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_what_passes_is_what_can_be_read(mode: str, suffix: str, tmp_path: Path) -> None:
    """Whole, cut off at every length, and with a byte changed: `fault` and the reader agree."""
    if mode in ("LA", "P", "RGBA", "I;16") and suffix == "jpg":
        mode = "CMYK"
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (9, 11), dtype=np.uint8)
    Image.fromarray(noise).convert("RGB" if mode in ("LA", "RGBA", "CMYK") else "L").convert(mode).save(path)
    whole = path.read_bytes()
    variants = [whole[:length] for length in range(0, len(whole), 19)]
    for place in range(8, len(whole), 17):
        variants.append(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    good = 0
    for content in [*variants, whole]:
        path.write_bytes(content)
        refused = {}
        for shape in ((9, 11, 3), (4, 4, 1)):
            try:
                data.read_image(path, shape=shape)
                refused[shape] = ""
            except DataError as error:
                refused[shape] = f"{error.what}: {error.why}"
        with _pixels.quiet():
            assert {_pixels.fault(path)} == set(refused.values())
        good += not any(refused.values())
    assert 1 <= good < len(variants)
