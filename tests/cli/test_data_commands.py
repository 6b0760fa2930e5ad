"""`emb data` as the user runs it: in a process of its own, with files and a web server of this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import emb

ROOT = Path(emb.__file__).parents[1]


def _run(*arguments: str, cache: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    program = f"{before}\nimport sys\nfrom emb.cli import main\nsys.argv[0] = 'emb'\nmain()"
    environment = os.environ | {"EMB_CACHE_DIR": str(cache), "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    environment.pop("EMB_DATA_DIR", None)
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, env=environment
    )


def test_list_as_json(tmp_path: Path) -> None:
    done = _run("data", "list", "--json", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["directories"] == [str(tmp_path / "data")]
    rows = {row["name"]: row for row in document["data"]}
    assert rows["digits"]["found"]
    assert rows["digits"]["bytes"] > 50_000
    assert rows["digits"]["files"] == ["digits.csv.gz"]
    assert not rows["mnist"]["found"]
    assert rows["mnist"]["downloadable"]
    assert rows["mnist"]["fix"].startswith("run `emb data fetch mnist`")
    assert not rows["folder"]["downloadable"]


def test_list_as_a_table(tmp_path: Path) -> None:
    done = _run("data", "list", "--data-dir", str(tmp_path), cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "emb data fetch cifar10" in done.stdout
    assert str(tmp_path / "data") in done.stdout
    assert "\x1b" not in done.stdout


def test_list_imports_nothing_heavy(tmp_path: Path) -> None:
    report = (
        "import atexit, sys\n"
        "heavy = ('numpy', 'PIL', 'sklearn', 'pooch', 'keras', 'tensorflow')\n"
        "atexit.register(lambda: print([m for m in heavy if m in sys.modules], file=sys.stderr))"
    )
    assert _run("data", "list", cache=tmp_path, before=report).stderr == "[]\n"


def test_a_data_dir_that_is_not_there(tmp_path: Path) -> None:
    done = _run("data", "list", "--data-dir", str(tmp_path / "no"), cache=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path}/no is no directory\n")


def test_fetch_of_an_unknown_name(tmp_path: Path) -> None:
    done = _run("data", "fetch", "minst", cache=tmp_path)
    assert done.returncode == 2
    assert "unknown data set 'minst'" in done.stderr
    assert "did you mean 'mnist'?" in done.stderr


def _with_url(url: str) -> str:
    """A program that makes MNIST consist of one file, b"labels", published at `url`."""
    checksum = f"sha256:{hashlib.sha256(b'labels').hexdigest()}"
    return (
        "from emb.data import mnist\n"
        "from emb.data._fetch import Download, RemoteFile\n"
        f"file = RemoteFile(name='labels.gz', urls=({url!r},), total_bytes=6, checksum={checksum!r})\n"
        "mnist.DOWNLOAD = Download(folder='mnist', files=(file,))"
    )


def test_fetch_without_a_connection(tmp_path: Path) -> None:
    done = _run("data", "fetch", "mnist", "--json", cache=tmp_path, before=_with_url("http://127.0.0.1:9/labels.gz"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"]["why"] == "http://127.0.0.1:9/labels.gz: no connection to 127.0.0.1"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Silence on stderr."""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "labels.gz").write_bytes(b"labels")
    handler = functools.partial(_Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/labels.gz"
        running.shutdown()
        thread.join()


@pytest.mark.slow
def test_fetch(url: str, tmp_path: Path) -> None:
    done = _run("data", "fetch", "mnist", "--json", cache=tmp_path, before=_with_url(url))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "name": "mnist",
        "directory": str(tmp_path / "data" / "mnist"),
        "files": ["labels.gz"],
        "bytes": 6,
        "downloaded": ["labels.gz"],
    }
    again = _run("data", "fetch", "mnist", cache=tmp_path, before=_with_url(url))
    assert again.stdout == f"mnist: nothing to do, all in {tmp_path}/data/mnist\n"
    elsewhere = _run(
        "data", "fetch", "mnist", "--data-dir", str(tmp_path / "mine"), cache=tmp_path, before=_with_url(url)
    )
    assert elsewhere.stdout == f"mnist: downloaded 1 files, all in {tmp_path}/mine/mnist\n"
    assert (tmp_path / "mine" / "mnist" / "labels.gz").read_bytes() == b"labels"
