"""Downloads from a web server on this machine: checksum, resume, mirrors, archives, no connection."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import tarfile
from pathlib import Path
from typing import Any

import pytest

from emb import data
from emb.data import DATA
from emb.data._fetch import Download, Fetched, RemoteFile, fetch_all
from emb.errors import DataError, SpecError, StoreError

CONTENT = bytes(range(256)) * 1200


def _remote(server: Any, name: str = "a.bin", content: bytes = CONTENT, **changes: Any) -> RemoteFile:
    fields: dict[str, Any] = {
        "name": name,
        "urls": (server.url + name,),
        "total_bytes": len(content),
        "checksum": f"sha256:{hashlib.sha256(content).hexdigest()}",
    }
    return RemoteFile(**fields | changes)


def _fetch(*files: RemoteFile, directory: Path, progress: Any = None) -> Fetched:
    return fetch_all("toy", Download(folder="toy", files=files), directory=directory, progress=progress)


def _fault(*files: RemoteFile, directory: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        _fetch(*files, directory=directory)
    return caught.value


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".fetch.lock")


@pytest.fixture
def served(tmp_path: Path, server: Any) -> Path:
    (tmp_path / "served" / "a.bin").write_bytes(CONTENT)
    return tmp_path / "served"


def test_a_download_is_checked_and_reported(server: Any, served: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    fetched = _fetch(_remote(server), directory=tmp_path / "cache", progress=lambda *args: seen.append(args))
    assert fetched.directory == tmp_path / "cache" / "toy"
    assert fetched.files == (tmp_path / "cache" / "toy" / "a.bin",)
    assert fetched.downloaded == ("a.bin",)
    assert fetched.files[0].read_bytes() == CONTENT
    assert _visible(fetched.directory) == ["a.bin"]
    assert seen[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_what_is_there_is_not_downloaded_again(server: Any, served: Path, tmp_path: Path) -> None:
    _fetch(_remote(server), directory=tmp_path)
    again = _fetch(_remote(server), directory=tmp_path)
    assert again.downloaded == ()
    assert again.files == (tmp_path / "toy" / "a.bin",)
    assert len(server.requests) == 1


def test_md5_is_understood(server: Any, served: Path, tmp_path: Path) -> None:
    checksum = f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"
    assert _fetch(_remote(server, checksum=checksum), directory=tmp_path).downloaded == ("a.bin",)


def test_a_broken_download_is_continued(server: Any, served: Path, tmp_path: Path) -> None:
    server.break_after_bytes = 100_000
    fault = _fault(_remote(server), directory=tmp_path)
    assert str(fault) == (
        "cannot download a.bin of toy\n"
        f"  why: {server.url}a.bin: broke off after 100,000 bytes\n"
        "  fix: connect to the internet and run `emb data fetch toy` again, it continues where it stopped; "
        f"or put a.bin into {tmp_path}/toy by hand"
    )
    assert _visible(tmp_path / "toy") == [".a.bin.part"]
    server.break_after_bytes = None
    assert _fetch(_remote(server), directory=tmp_path).files[0].read_bytes() == CONTENT
    assert server.requests == [("/a.bin", None), ("/a.bin", "bytes=100000-")]
    assert _visible(tmp_path / "toy") == ["a.bin"]


def test_a_server_without_ranges_starts_over(server: Any, served: Path, tmp_path: Path) -> None:
    server.break_after_bytes = 5_000
    _fault(_remote(server), directory=tmp_path)
    server.break_after_bytes, server.ranges = None, False
    assert _fetch(_remote(server), directory=tmp_path).files[0].read_bytes() == CONTENT


def test_the_next_mirror_continues(server: Any, served: Path, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / ".a.bin.part").write_bytes(CONTENT[:777])
    remote = _remote(server, urls=(server.url + "gone.bin", server.url + "a.bin"))
    assert _fetch(remote, directory=tmp_path).files[0].read_bytes() == CONTENT
    assert server.requests == [("/gone.bin", "bytes=777-"), ("/a.bin", "bytes=777-")]


def test_a_complete_part_needs_no_request(server: Any, served: Path, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / ".a.bin.part").write_bytes(CONTENT)
    assert _fetch(_remote(server), directory=tmp_path).downloaded == ("a.bin",)
    assert server.requests == []


@pytest.mark.parametrize("size", [1000, len(CONTENT), len(CONTENT) + 5])
def test_a_worthless_part_is_thrown_away(size: int, server: Any, served: Path, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / ".a.bin.part").write_bytes(b"?" * size)
    assert _fetch(_remote(server), directory=tmp_path).files[0].read_bytes() == CONTENT
    assert _visible(tmp_path / "toy") == ["a.bin"]


def test_a_wrong_checksum(server: Any, served: Path, tmp_path: Path) -> None:
    fault = _fault(_remote(server, checksum="md5:0123"), directory=tmp_path)
    assert fault.what == "cannot download a.bin of toy"
    assert fault.why == f"{server.url}a.bin: what it delivers has not the published checksum md5:0123"
    assert _visible(tmp_path / "toy") == []


def test_a_page_instead_of_the_file(server: Any, served: Path, tmp_path: Path) -> None:
    (served / "a.bin").write_text("<html>please log in</html>")
    fault = _fault(_remote(server), directory=tmp_path)
    assert fault.why == f"{server.url}a.bin: offers 26 bytes where 307,200 are due"
    assert _visible(tmp_path / "toy") == []


def test_a_file_that_the_server_does_not_have(server: Any, tmp_path: Path) -> None:
    assert _fault(_remote(server), directory=tmp_path).why == f"{server.url}a.bin: HTTP 404 Not Found"


def test_no_connection(server: Any, tmp_path: Path) -> None:
    # Port 9 (discard) of this machine: nobody listens there.
    remote = _remote(server, urls=("http://127.0.0.1:9/a.bin", "http://127.0.0.1:9/b.bin"))
    assert _fault(remote, directory=tmp_path).why == (
        "http://127.0.0.1:9/a.bin: no connection to 127.0.0.1; http://127.0.0.1:9/b.bin: no connection to 127.0.0.1"
    )


def test_another_file_of_that_name_is_left_alone(server: Any, served: Path, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "a.bin").write_bytes(b"mine")
    fault = _fault(_remote(server), directory=tmp_path)
    assert fault.what == f"{tmp_path}/toy/a.bin is not the published file"
    assert (tmp_path / "toy" / "a.bin").read_bytes() == b"mine"


def test_a_directory_that_cannot_be_made(server: Any, served: Path, tmp_path: Path) -> None:
    (tmp_path / "toy").write_text("a file")
    with pytest.raises(StoreError, match=f"cannot create {tmp_path}/toy"):
        _fetch(_remote(server), directory=tmp_path)


def _archive(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("batches/c.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return stream.getvalue()


def test_an_archive_is_unpacked_and_removed(server: Any, served: Path, tmp_path: Path) -> None:
    content = _archive({"batches/a.bin": b"A", "batches/readme.html": b"no", "../../b.bin": b"B"})
    (served / "t.tar.gz").write_bytes(content)
    remote = _remote(server, "t.tar.gz", content, unpack=("a.bin", "b.bin"))
    fetched = _fetch(remote, directory=tmp_path)
    assert fetched.downloaded == ("a.bin", "b.bin")
    assert [path.read_bytes() for path in fetched.files] == [b"A", b"B"]
    assert _visible(tmp_path / "toy") == ["a.bin", "b.bin"]
    assert not (tmp_path.parent / "b.bin").exists()
    assert _fetch(remote, directory=tmp_path).downloaded == ()


def test_links_in_an_archive_are_not_files(server: Any, served: Path, tmp_path: Path) -> None:
    content = _archive({"batches/a.bin": b"A"})
    (served / "t.tar.gz").write_bytes(content)
    fault = _fault(_remote(server, "t.tar.gz", content, unpack=("a.bin", "c.bin")), directory=tmp_path)
    assert fault.why == "it does not contain c.bin"


def _fetch_in_process(remote: RemoteFile, directory: Path) -> int:
    return len(_fetch(remote, directory=directory).downloaded)


def test_two_at_once_download_once(server: Any, served: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        counts = pool.starmap(_fetch_in_process, [(_remote(server), tmp_path)] * 2)
    assert sorted(counts) == [0, 1]
    assert len(server.requests) == 1


def test_data_sets_that_have_no_download() -> None:
    with pytest.raises(DataError) as caught:
        data.fetch("digits")
    assert caught.value.what == "there is nothing to download for digits"
    assert caught.value.fix == "known: cifar10, fashion-mnist, mnist"
    with pytest.raises(SpecError, match="unknown data set 'minst'"):
        data.fetch("minst")


@pytest.mark.parametrize("name", data.downloadable())
def test_what_is_published_is_what_is_looked_for(name: str, tmp_path: Path) -> None:
    """The files that a download makes are the ones that `find` accepts."""
    download = DATA.get(name).DOWNLOAD
    for remote in download.files:
        algorithm, _, digits = remote.checksum.partition(":")
        assert len(bytes.fromhex(digits)) == hashlib.new(algorithm, usedforsecurity=False).digest_size
        assert all(url.endswith(remote.name) for url in remote.urls)
        for member in remote.unpack or (remote.name,):
            (tmp_path / download.folder).mkdir(exist_ok=True)
            (tmp_path / download.folder / member).touch()
    assert data.locate(name, data.DataRequest(directories=(tmp_path,))).found
