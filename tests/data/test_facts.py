"""What is remembered of files: exactly as long as they do not change, and only if they have been left alone."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from emb import data
from emb.data import _facts
from emb.data._facts import facts_of
from emb.errors import DataError, StoreError
from emb.spec.dataset import DataRequest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The database of this test; what is found out is remembered at once."""
    monkeypatch.setenv("EMB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(_facts, "SETTLED_NS", 0)
    return tmp_path / "cache" / _facts.NAME


class Reader:
    """Finds out a file's content, and notes whose."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, path: Path) -> bytes:
        self.read.append(path.name)
        return path.read_bytes()


def _files(folder: Path, count: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number:04}").write_bytes(f"content {number:04}".encode())
    return sorted(folder.iterdir())


def test_facts_come_in_order_and_are_found_out_once(tmp_path: Path) -> None:
    files = _files(tmp_path / "a", 1203)  # more than two batches
    first, second = Reader(), Reader()
    expected = [path.read_bytes() for path in files]
    assert list(facts_of(files, "content", first)) == expected
    assert sorted(first.read) == [path.name for path in files]
    assert list(facts_of(reversed(files), "content", second)) == expected[::-1]
    assert second.read == []


def test_kinds_are_kept_apart(tmp_path: Path) -> None:
    files = _files(tmp_path / "a", 2)
    assert list(facts_of(files, "one", lambda _: b"1")) == [b"1", b"1"]
    assert list(facts_of(files, "two", lambda _: b"2")) == [b"2", b"2"]
    assert list(facts_of(files, "one", lambda _: b"3")) == [b"1", b"1"]


@pytest.mark.parametrize("change", ["content", "length", "date", "replaced"])
def test_a_changed_file_is_read_again(change: str, tmp_path: Path) -> None:
    files = _files(tmp_path / "a", 3)
    list(facts_of(files, "content", Reader()))
    status = files[1].stat()
    if change == "date":
        os.utime(files[1], ns=(0, 0))
    elif change == "replaced":  # of the same length and date, moved over the old one
        (tmp_path / "new").write_bytes(b"CONTENT 0001")
        os.utime(tmp_path / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
        (tmp_path / "new").rename(files[1])
    else:
        files[1].write_bytes(b"CONTENT 0001" if change == "content" else b"x")
        if change == "content":  # and somebody sets the date back
            os.utime(files[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    again = Reader()
    assert list(facts_of(files, "content", again)) == [path.read_bytes() for path in files]
    assert again.read == ["0001"]


def test_nothing_is_remembered_of_a_file_that_has_just_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_facts, "SETTLED_NS", 3_600_000_000_000)
    files = _files(tmp_path / "a", 2)
    for _ in range(2):
        reader = Reader()
        list(facts_of(files, "content", reader))
        assert len(reader.read) == 2


def test_what_was_found_out_before_an_error_is_kept(tmp_path: Path) -> None:
    files = _files(tmp_path / "a", 700)

    def refuse_late(path: Path) -> bytes:
        if path.name == "0600":
            raise DataError(f"{path} is bad")
        return b""

    with pytest.raises(DataError, match="0600 is bad"):
        list(facts_of(files, "content", refuse_late))
    again = Reader()
    list(facts_of(files, "content", again))
    assert sorted(again.read) == [path.name for path in files[600:]]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(facts_of([tmp_path / "gone"], "content", Reader()))
    assert caught.value.what == f"{tmp_path}/gone cannot be read"


def test_a_damaged_database_is_named(tmp_path: Path, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError) as caught:
        list(facts_of(_files(tmp_path / "a", 1), "content", Reader()))
    assert str(caught.value) == (
        f"{cache} cannot be used\n"
        "  why: file is not a database\n"
        "  fix: delete it if it is damaged (emb makes it again), or choose another place with EMB_CACHE_DIR"
    )


def test_a_changed_image_changes_the_digest_of_its_folder(image_folder: Path, cache: Path) -> None:
    request = DataRequest(path=image_folder)
    before = data.digest("folder", request)
    assert data.digest("folder", request) == before
    with sqlite3.connect(cache) as database:
        assert database.execute("SELECT count(*) FROM facts WHERE kind = 'sha256'").fetchone() == (20,)
    database.close()
    path = image_folder / "red" / "3.png"
    content, status = path.read_bytes(), path.stat()
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = data.digest("folder", request)
    assert changed != before
    path.write_bytes(content)
    assert data.digest("folder", request) == before


def test_the_digest_is_the_same_without_what_is_remembered(image_folder: Path, cache: Path) -> None:
    before = data.digest("folder", DataRequest(path=image_folder))
    cache.unlink()
    assert data.digest("folder", DataRequest(path=image_folder)) == before
