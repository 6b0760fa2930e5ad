"""How one image becomes pixels: orientation, colours, cropping, scaling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emb import data
from emb.data._pixels import to_shape
from emb.errors import DataError


def _corners() -> np.ndarray:
    """(16, 24, 3): red top left, green top right, blue bottom left, white bottom right."""
    image = np.zeros((16, 24, 3), np.uint8)
    image[:8, :12] = (255, 0, 0)
    image[:8, 12:] = (0, 255, 0)
    image[8:, :12] = (0, 0, 255)
    image[8:, 12:] = (255, 255, 255)
    return image


def test_png_is_exact(tmp_path: Path) -> None:
    Image.fromarray(_corners()).save(tmp_path / "a.png")
    assert np.array_equal(data.read_image(tmp_path / "a.png", shape=(16, 24, 3)), _corners())


@pytest.mark.parametrize(
    ("orientation", "turned_back"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.transpose(1, 0, 2)),
        (6, lambda x: np.rot90(x)),
        (7, lambda x: np.rot90(x, 2).transpose(1, 0, 2)),
        (8, lambda x: np.rot90(x, -1)),
    ],
)
def test_exif_orientation(orientation: int, turned_back: object, tmp_path: Path) -> None:
    # Stored the way a camera held askew stores it; the tag says how to turn it upright.
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turned_back(_corners()))).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(data.read_image(tmp_path / "a.png", shape=(16, 24, 3)), _corners())


@pytest.mark.parametrize(
    "exif",
    [
        b"nonsense that is no TIFF header",
        b"II*\0\x08\0\0\0\x05\0",  # five entries are announced, none follows
        b"II*\0\x08\0\0\0\x01\0" + b"\x0e\x01\x02\0\xe8\x03\0\0\x88\x13\0\0" + b"\0\0\0\0",  # text behind the end
    ],
)
def test_corrupt_exif_is_no_reason_to_refuse(exif: bytes, tmp_path: Path) -> None:
    Image.fromarray(_corners()).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif, quality=95)
    Image.fromarray(_corners()).save(tmp_path / "b.jpg", quality=95)
    one, other = (data.read_image(tmp_path / name, shape=(16, 24, 3)) for name in ("a.jpg", "b.jpg"))
    assert np.array_equal(one, other)


def test_the_centre_is_cropped_to_the_aspect_ratio(tmp_path: Path) -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, :10] = 50
    image[:, 10:20] = 100
    image[:, 20:] = 150
    Image.fromarray(image).save(tmp_path / "a.png")
    assert np.all(data.read_image(tmp_path / "a.png", shape=(10, 10, 3)) == 100)
    smaller = data.read_image(tmp_path / "a.png", shape=(5, 5, 1))
    assert np.all(smaller[:, 1:4] == 100)
    # At the crop's own border the filter still sees a little of what lies beyond.
    assert np.all(np.abs(smaller.astype(int) - 100) <= 10)


@pytest.mark.parametrize("length", [29, 31, 58, 62, 117])
def test_a_square_image_is_whole_whatever_its_length(tmp_path: Path, length: int) -> None:
    """length / 28 * 28 is not quite length in floating point."""
    Image.fromarray(np.full((length, length), 90, np.uint8)).save(tmp_path / "a.png")
    assert np.all(data.read_image(tmp_path / "a.png", shape=(28, 28, 1)) == 90)


def test_scaling_down_averages(tmp_path: Path) -> None:
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checks).save(tmp_path / "a.png")
    small = data.read_image(tmp_path / "a.png", shape=(8, 8, 1))
    assert np.all(np.abs(small.astype(int) - 127) <= 2)


@pytest.mark.parametrize(("mode", "grey"), [("L", 90), ("LA", 90), ("RGB", 90), ("RGBA", 90), ("P", 90), ("1", 255)])
def test_modes(mode: str, grey: int, tmp_path: Path) -> None:
    image = Image.new("L", (4, 4), 90 if mode != "1" else 255)
    image.convert(mode).save(tmp_path / "a.png")
    for channels in (1, 3):
        assert np.all(data.read_image(tmp_path / "a.png", shape=(4, 4, channels)) == grey)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    pixels = data.read_image(tmp_path / "a.jpg", shape=(8, 8, 3)).astype(int)
    assert np.all(np.abs(pixels - (255, 0, 0)) < 12)


def test_16_bit_grey_is_rounded(tmp_path: Path) -> None:
    values = np.array([[0, 257, 65535, 128, 129, 385]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert data.read_image(tmp_path / "a.png", shape=(1, 6, 1)).ravel().tolist() == [0, 1, 255, 0, 1, 1]


def test_transparent_pixels_lie_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert np.all(data.read_image(tmp_path / "a.png", shape=(4, 4, 3)) == 255)


def test_luma_is_that_of_itu_r_601(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), (200, 100, 50)).save(tmp_path / "a.png")
    expected = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert np.all(data.read_image(tmp_path / "a.png", shape=(2, 2, 1)) == expected)


def test_an_image_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (12, 12)).save(tmp_path / "large.png")  # warned of by Pillow, and read
    assert data.read_image(tmp_path / "large.png", shape=(12, 12, 1)).shape == (12, 12, 1)
    Image.new("L", (20, 20)).save(tmp_path / "larger.png")
    with pytest.raises(DataError, match=r"larger\.png is too large an image"):
        data.read_image(tmp_path / "larger.png", shape=(20, 20, 1))


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        data.read_image(tmp_path / "a.png", shape=(2, 2, 1))
    assert caught.value.what == f"{tmp_path}/a.png cannot be read"


def test_arrays_go_the_same_way_as_files(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    for shape in ((20, 30, 3), (10, 10, 3), (7, 9, 1), (40, 60, 3)):
        scaled = to_shape(images, shape=shape)
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "a.png")
            assert np.array_equal(scaled[number], data.read_image(tmp_path / "a.png", shape=shape))


def test_grey_arrays_become_rgb_as_files_do(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 1), dtype=np.uint8)
    scaled = to_shape(images, shape=(11, 13, 3))
    Image.fromarray(images[1, ..., 0]).save(tmp_path / "a.png")
    assert np.array_equal(scaled[1], data.read_image(tmp_path / "a.png", shape=(11, 13, 3)))
    assert to_shape(images, shape=None) is images
