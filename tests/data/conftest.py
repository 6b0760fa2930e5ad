"""Small real files of every format, and a web server on this machine that can break off a download."""

from __future__ import annotations

import functools
import gzip
import http.server
import re
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """The idx format, written from its definition and not with emb's own code."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def idx() -> Callable[[NDArray[np.uint8]], bytes]:
    return idx_bytes


@pytest.fixture
def mnist_files(tmp_path: Path) -> Path:
    """A directory with an `mnist` folder: 40 train and 20 test images, each class equally often."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for prefix, count in (("train", 40), ("t10k", 20)):
        images = rng.integers(0, 256, size=(count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return folder.parent


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes, `blue` and `red`, of ten 12x8 PNGs each; pixel (0, 0) tells the image's number."""
    from PIL import Image

    root = tmp_path / "pictures"
    for name, colour in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
        (root / name).mkdir(parents=True)
        for number in range(10):
            image = Image.new("RGB", (12, 8), colour)
            image.putpixel((0, 0), (number, number, number))
            image.save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def many_images(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Makes a folder of that many images in ten classes, all of them hard links of twenty 24x16 files."""
    from PIL import Image

    def make(count: int) -> Path:
        root = tmp_path_factory.mktemp(f"images-{count}")
        sources = []
        rng = np.random.default_rng(7)
        for number in range(20):
            suffix = ".jpg" if number % 2 else ".png"
            sources.append(root.parent / f"{root.name}-source-{number}{suffix}")
            Image.fromarray(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(sources[-1])
        for label in range(10):
            (root / f"class-{label}").mkdir()
        for number in range(count):
            source = sources[number // 10 % 20]
            (root / f"class-{number % 10}" / f"image-{number}{source.suffix}").hardlink_to(source)
        return root

    return make


@dataclass
class Server:
    """url: of the folder it serves.  requests: (path, Range header) of each request so far.

    break_after_bytes: close the connection after so many bytes of each body.  ranges: honour Range headers.
    """

    url: str
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    break_after_bytes: int | None = None
    ranges: bool = True


class _Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, *args: object, root: Path, state: Server, **kwargs: object) -> None:
        self._root = root
        self._state = state
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self._state.requests.append((self.path, asked))
        path = self._root / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        body = path.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-", asked or "") if self._state.ranges else None
        start = int(match[1]) if match else 0
        if start and start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = None if self._state.break_after_bytes is None else start + self._state.break_after_bytes
        self.wfile.write(body[start:stop])

    def log_message(self, *_: object) -> None:
        """Silence on stderr."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves tmp_path/served over HTTP on a free port of this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    root = tmp_path / "served"
    root.mkdir()
    state = Server(url="")
    handler = functools.partial(_Handler, root=root, state=state)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        state.url = f"http://127.0.0.1:{running.server_port}/"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        running.shutdown()
        thread.join()
