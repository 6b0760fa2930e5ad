"""run.py decodes and scales images to the very bits that emb makes of them with Pillow."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from emb.data import read_image
from emb.data._pixels import to_shape

SHAPES = [(28, 28, 1), (32, 32, 3), (224, 160, 3)]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    rows: NDArray[np.uint8], *, width: int, depth: int, colour: int, filters: Any = None, step: int = 1, **more: bytes
) -> bytes:
    """A PNG of the packed rows, (height, bytes) uint8, filtered row by row with the filters given in turn."""
    height = len(rows)
    raw = bytearray()
    above = np.zeros_like(rows[0], dtype=np.int32)
    for y, row in enumerate(rows.astype(np.int32)):
        left, corner = (np.concatenate([np.zeros(step, np.int32), line])[: len(row)] for line in (row, above))
        guess = left + above - corner
        to = np.stack([abs(guess - left), abs(guess - above), abs(guess - corner)])
        paeth = np.choose(to.argmin(axis=0), [left, above, corner])
        kind = 0 if filters is None else filters[y % len(filters)]
        coded = row - [np.zeros_like(row), left, above, (left + above) // 2, paeth][kind]
        raw += bytes([kind]) + (coded & 255).astype(np.uint8).tobytes()
        above = row
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *(chunk(kind.encode(), data) for kind, data in more.items())]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IDAT", zlib.compress(bytes(raw))), chunk(b"IEND", b"")])


def on_the_board(device: ModuleType, path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    height, width, channels = shape
    fitted: NDArray[np.uint8] = device.fitted(
        device.decode_png(path.read_bytes(), path), height=height, width=width, channels=channels
    )
    return fitted


@given(
    rows=st.integers(1, 90),
    columns=st.integers(1, 90),
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    channels=st.sampled_from([(1, 1), (3, 3), (3, 1), (1, 3)]),
    seed=st.integers(0, 99),
)
def test_scaling(
    device: ModuleType, rows: int, columns: int, height: int, width: int, channels: tuple[int, int], seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, channels[0]), dtype=np.uint8)
    shape = (height, width, channels[1])
    ours = device.fitted(pixels, height=height, width=width, channels=channels[1])
    expected = to_shape(pixels[np.newaxis], shape=shape)[0]
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, expected)


def test_scaling_a_photograph_down(device: ModuleType, tmp_path: Path) -> None:
    y, x = np.mgrid[0:1080, 0:1920]
    smooth = np.stack([x * 255 // 1919, y * 255 // 1079, (x * y) % 256], axis=2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "photo.png")
    for shape in SHAPES:
        np.testing.assert_array_equal(
            device.fitted(smooth, height=shape[0], width=shape[1], channels=shape[2]),
            read_image(tmp_path / "photo.png", shape=shape),
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_what_pillow_writes(device: ModuleType, tmp_path: Path, mode: str, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:67, 0:91]
    # Smooth, so that the writer chooses all kinds of filters; the last channel is the alpha.
    smooth = np.stack([2 * x, 3 * y, x + y, 255 - 2 * x], axis=2).astype(np.uint8) + rng.integers(0, 4, dtype=np.uint8)
    images = {
        "1": Image.fromarray(smooth[..., 0]).convert("1"),
        "L": Image.fromarray(smooth[..., 0]),
        "LA": Image.fromarray(np.ascontiguousarray(smooth[..., [0, 3]]), "LA") if mode == "LA" else None,
        "P": Image.fromarray(smooth[..., :3]).quantize(23),
        "RGB": Image.fromarray(smooth[..., :3]),
        "RGBA": Image.fromarray(smooth),
        "I;16": Image.fromarray((257 * smooth[..., 0].astype(np.uint16)) ^ 99),
    }
    image = images[mode]
    assert image is not None
    keys: dict[str, list[dict[str, Any]]] = {"L": [{"transparency": 40}], "RGB": [{"transparency": (2, 3, 4)}]}
    keys["P"] = [{"transparency": bytes([0, 99, 200])}]
    for options in [{}, *keys.get(mode, [])]:
        image.save(tmp_path / "image.png", **options)
        np.testing.assert_array_equal(
            on_the_board(device, tmp_path / "image.png", shape), read_image(tmp_path / "image.png", shape=shape)
        )


@pytest.mark.parametrize(
    ("depth", "colour", "samples"),
    [(1, 0, 1), (2, 0, 1), (4, 0, 1), (8, 0, 1), (16, 0, 1), (8, 2, 3), (16, 2, 3), (8, 4, 2), (16, 4, 2), (8, 6, 4),
     (16, 6, 4), (1, 3, 1), (2, 3, 1), (4, 3, 1), (8, 3, 1)],
)  # fmt: skip
def test_all_kinds_and_filters(device: ModuleType, tmp_path: Path, depth: int, colour: int, samples: int) -> None:
    width, height = 37, 20
    stride = -(-width * samples * depth // 8)
    rows = np.random.default_rng(depth + colour).integers(0, 256, (height, stride), dtype=np.uint8)
    more = {"PLTE": bytes(range(256)) * 3} if colour == 3 else {}
    path = tmp_path / "image.png"
    step = max(1, samples * depth // 8)
    path.write_bytes(
        png(rows, width=width, depth=depth, colour=colour, filters=[0, 1, 2, 3, 4, 4, 3, 2, 1], step=step, **more)
    )
    for shape in [(height, width, 1), (height, width, 3)]:
        np.testing.assert_array_equal(on_the_board(device, path, shape), read_image(path, shape=shape))


def test_what_is_left_to_pillow(device: ModuleType, tmp_path: Path) -> None:
    """It is on this machine, and gives what emb gives: turned upright, with a transparent value of 16 bits."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    image.save(tmp_path / "turned.jpg", exif=exif)
    rows = np.zeros((8, 2), dtype=np.uint8)
    (tmp_path / "key.png").write_bytes(png(rows, width=8, depth=2, colour=0, tRNS=b"\0\1"))
    for name in ("turned.png", "turned.jpg", "key.png"):
        path = tmp_path / name
        if name.endswith("png"):
            assert device.decode_png(path.read_bytes(), path) is None
        pixels = device.fitted(device.read_image(path), height=16, width=16, channels=3)
        np.testing.assert_array_equal(pixels, read_image(path, shape=(16, 16, 3)))


def test_pnm_and_npy(device: ModuleType, tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    (tmp_path / "a.ppm").write_bytes(b"P6\n# a comment\n3 2\n#another\n255\n" + pixels.tobytes())
    np.testing.assert_array_equal(device.read_image(tmp_path / "a.ppm"), pixels)
    (tmp_path / "a.pgm").write_bytes(b"P5 3 2 255\n" + pixels[..., 0].tobytes())
    np.testing.assert_array_equal(device.read_image(tmp_path / "a.pgm"), pixels[..., :1])
    np.save(tmp_path / "a.npy", pixels[..., 0])
    np.testing.assert_array_equal(device.read_image(tmp_path / "a.npy"), pixels[..., :1])


SOUND = png(np.zeros((4, 4), dtype=np.uint8), width=4, depth=8, colour=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.png", SOUND[:-20], "cut.png is a damaged PNG"),
        ("crc.png", SOUND[:45] + b"?" + SOUND[46:], "crc.png is a damaged PNG"),
        ("few.png", png(np.zeros((3, 3), np.uint8), width=4, depth=8, colour=0), "few.png is a damaged PNG"),
        ("kind.png", png(np.zeros((3, 3), np.uint8), width=3, depth=8, colour=5), "kind.png is a damaged PNG"),
        ("depth.png", png(np.zeros((3, 3), np.uint8), width=3, depth=9, colour=0), "depth.png is a damaged PNG"),
        ("none.png", png(np.zeros((3, 3), np.uint8), width=3, depth=8, colour=3), "none.png is a damaged PNG"),
        (
            "huge.png",
            png(np.zeros((3, 3), np.uint8), width=1 << 30, depth=8, colour=0),
            "huge.png has 1073741824 x 3 pixels; at most 67,108,864 are read",
        ),
        ("cut.ppm", b"P6 3 2 255\n123", "cut.ppm is damaged: it ends too early"),
        ("no.pgm", b"P5 3 #", "no.pgm is damaged: its header holds no width, height and highest value"),
        ("bits.pgm", b"P5 1 1 65535\n12", "bits.pgm has values up to 65535; make it one of 8 bits, up to 255"),
        ("text.txt", b"hello", "cannot decode text.txt: cannot identify image file"),
    ],
)
def test_damaged_images(
    device: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    with pytest.raises(device.Failure) as caught:
        device.read_image(Path(name))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2), np.float32), "a.npy holds float32 of shape (2, 2, 1), not uint8 (height, width, 1 or 3)"),
        (np.zeros((2, 2, 4), np.uint8), "a.npy holds uint8 of shape (2, 2, 4), not uint8 (height, width, 1 or 3)"),
        (np.array([{}]), "a.npy is damaged: Object arrays cannot be loaded when allow_pickle=False"),
    ],
)
def test_arrays_that_are_no_images(
    device: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: NDArray[Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", array)
    with pytest.raises(device.Failure) as caught:
        device.read_image(Path("a.npy"))
    assert str(caught.value) == message


def test_a_picture_that_unpacks_to_more_than_it_says(device: ModuleType, tmp_path: Path) -> None:
    """A gigabyte of zeros behind a header of 4 x 4 pixels: no more than the pixels are unpacked."""
    packer = zlib.compressobj()
    zeros = bytes(1 << 20)
    packed = b"".join(packer.compress(zeros) for _ in range(64)) + packer.flush()
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    assert device.read_image(path).shape == (4, 4, 1)
