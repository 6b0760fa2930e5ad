"""Bundles are opened only if every byte of them is what bundle.json lists; the attacks one by one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emb.deploy.bundle import MOST_BYTES, open_bundle, write_archive
from emb.errors import ModelError, StoreError
from emb.spec.bundle import MANIFEST, is_safe_path

TOP = "net-int8-rpi4"
FIX = "\n  fix: make the bundle again, and copy it once more"


def refusal(path: Path) -> str:
    """Why a bundle is refused; nothing may have been written beside it."""
    around = sorted(path.parent.rglob("*"))
    with pytest.raises(ModelError) as caught:
        open_bundle(path)
    assert sorted(path.parent.rglob("*")) == around
    told = str(caught.value)
    start = f"{path} is no bundle to trust\n  why: "
    assert told.startswith(start), told
    assert told.endswith(FIX)
    return told.removeprefix(start).removesuffix(FIX)


Members = list[tuple[tarfile.TarInfo, bytes]]


def members_of(archive: Path) -> Members:
    with tarfile.open(archive) as tar:
        return [(member, tar.extractfile(member).read() if member.isfile() else b"") for member in tar]  # type: ignore[union-attr]


def rewrite(archive: Path, members: Members, *, format: int = tarfile.USTAR_FORMAT) -> Path:  # noqa: A002
    with tarfile.open(archive, "w:gz", format=format) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return archive


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(content)
    for field, value in fields.items():
        setattr(made, field, value)
    return made, content


def relist(members: Members, change: Callable[[dict[str, Any]], None]) -> Members:
    """The members with another bundle.json."""
    changed = []
    for one, content in members:
        if one.name.endswith(f"/{MANIFEST}"):
            table = json.loads(content)
            change(table)
            content = json.dumps(table).encode()
            one.size = len(content)
        changed.append((one, content))
    return changed


def test_a_sound_bundle_opens_from_both_and_is_one(directory: Path, archive: Path, tmp_path: Path) -> None:
    from_directory, from_archive = open_bundle(directory), open_bundle(archive)
    assert from_directory.digest == from_archive.digest
    assert from_directory.digest == hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest()
    assert from_directory.manifest == from_archive.manifest
    assert dict(from_directory.contents()) == dict(from_archive.contents())
    assert from_archive.read("labels.txt") == b"cat\ndog\n"
    assert from_archive.read(MANIFEST) == (directory / MANIFEST).read_bytes()
    with pytest.raises(ModelError, match="has no file nothing"):
        from_archive.read("nothing")


def test_unpacking_gives_the_directory_with_its_modes(directory: Path, archive: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        open_bundle(archive).unpack(tmp_path / "out")
    finally:
        os.umask(before)

    def state(place: Path) -> dict[str, tuple[int, bytes]]:
        return {
            path.relative_to(place).as_posix(): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in [place, *place.rglob("*")]
        }

    assert state(tmp_path / "out") == state(directory)
    assert (tmp_path / "out" / "run.py").stat().st_mode & 0o777 == 0o755
    with pytest.raises(StoreError, match="exists already"):
        open_bundle(archive).unpack(tmp_path / "out")


def test_the_same_directory_gives_the_same_archive(directory: Path, archive: Path, tmp_path: Path) -> None:
    os.utime(directory / "labels.txt", (1, 1))
    (directory / "labels.txt").chmod(0o600)
    again = tmp_path / "again.tar.gz"
    write_archive(directory, again, manifest=open_bundle(directory).manifest)
    assert again.read_bytes() == archive.read_bytes()
    assert again.stat().st_mode & 0o777 == 0o644
    assert archive.read_bytes()[4:8] == bytes(4)  # gzip's own time
    for one, _ in members_of(archive):
        assert (one.mtime, one.uid, one.gid, one.uname, one.gname) == (0, 0, 0, "", "")
        assert one.mode == (0o755 if one.isdir() or one.name.endswith("/run.py") else 0o644)


@pytest.mark.parametrize("name", ["../evil", f"{TOP}/../../evil", f"{TOP}/golden/../../../evil", "/tmp/evil"])
def test_a_member_that_leads_elsewhere(archive: Path, name: str) -> None:
    rewrite(archive, [*members_of(archive), member(name, b"x")])
    assert refusal(archive) == f"{name!r} leads out of the bundle"


@pytest.mark.parametrize("name", ["../evil", "/evil"])
def test_a_folder_that_leads_elsewhere(archive: Path, name: str) -> None:
    rewrite(archive, [member(name, type=tarfile.DIRTYPE, mode=0o755), *members_of(archive)])
    assert refusal(archive) == f"{name!r} leads out of the bundle"


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_links_devices_and_other_kinds(archive: Path, kind: bytes) -> None:
    """In place of a file that is listed."""
    kept = [one for one in members_of(archive) if not one[0].name.endswith("/labels.txt")]
    rewrite(archive, [*kept, member(f"{TOP}/labels.txt", type=kind, linkname="/etc/passwd")])
    assert refusal(archive) == f"'{TOP}/labels.txt' is neither a file nor a folder"


def test_extended_headers_are_not_followed(archive: Path) -> None:
    """They could rename a member, or hold any number of bytes."""
    named = member(f"{TOP}/labels.txt", b"cat\ndog\n", pax_headers={"path": "../evil"})
    rewrite(archive, [*members_of(archive), named], format=tarfile.PAX_FORMAT)
    assert refusal(archive).endswith("is neither a file nor a folder")


def test_a_name_that_is_there_twice(archive: Path) -> None:
    rewrite(archive, [*members_of(archive), member(f"{TOP}/labels.txt", b"cat\ndog\n")])
    assert refusal(archive) == "'labels.txt' is there twice"
    members = members_of(archive)[:-1]
    rewrite(archive, [*members, next(one for one in members if one[0].name.endswith(f"/{MANIFEST}"))])
    assert refusal(archive) == "'bundle.json' is there twice"


def test_a_name_that_is_not_listed(archive: Path) -> None:
    members = members_of(archive)
    rewrite(archive, [*members, member(f"{TOP}/numpy.py", b"import os")])
    assert refusal(archive) == "'numpy.py' is not listed in bundle.json"
    rewrite(archive, [*members, member("other/labels.txt", b"cat\ndog\n")])
    assert refusal(archive) == "'other/labels.txt' is not listed in bundle.json"


@pytest.mark.parametrize("name", ["net-int8.tflite", "contract.json", "golden/litert.default.npy", "run.py"])
def test_other_contents(directory: Path, archive: Path, name: str) -> None:
    members = members_of(archive)
    changed = [(one, content[:-1] + b"?" if one.name == f"{TOP}/{name}" else content) for one, content in members]
    rewrite(archive, changed)
    assert refusal(archive) == f"{name} is not what bundle.json lists: its sha256 differs"
    (directory / name).write_bytes((directory / name).read_bytes()[:-1] + b"?")
    assert refusal(directory) == f"{name} is not what bundle.json lists: its sha256 differs"


def test_other_sizes(directory: Path, archive: Path) -> None:
    members = members_of(archive)
    rewrite(archive, [*members[:-1], member(f"{TOP}/run.py", b"x" * 1000)])
    assert refusal(archive) == "run.py has 1,000 bytes, not 23"
    (directory / "labels.txt").write_bytes(b"")
    assert refusal(directory) == "labels.txt has 0 bytes, not 8"


def test_missing_files(directory: Path, archive: Path) -> None:
    rewrite(archive, members_of(archive)[:-1])
    assert refusal(archive) == "run.py is missing"
    (directory / "golden" / "images.npy").unlink()
    assert refusal(directory) == "golden/images.npy is missing"


def test_modes_that_let_others_in(archive: Path) -> None:
    for mode in (0o4755, 0o777, 0o666):
        members = members_of(archive)
        members[-1][0].mode = mode
        rewrite(archive, members)
        assert refusal(archive) == f"'{TOP}/run.py' has the mode {mode:o}"
        members[-1][0].mode = 0o755
        rewrite(archive, members)


def test_a_listing_that_is_too_large_is_refused_before_anything_is_read(archive: Path) -> None:
    def grow(table: dict[str, Any]) -> None:
        table["files"]["labels.txt"]["bytes"] = MOST_BYTES

    rewrite(archive, relist(members_of(archive), grow))
    assert refusal(archive) == f"it holds more than 1,000 files or {MOST_BYTES:,} bytes"


def test_a_member_that_unpacks_to_gigabytes_is_refused_by_its_header(archive: Path) -> None:
    """The header promises eight of them; none is unpacked."""
    bomb, _ = member(f"{TOP}/labels.txt")
    bomb.size = (8 << 30) - 1
    first = [one for one in members_of(archive) if one[0].isdir() or one[0].name.endswith(f"/{MANIFEST}")]
    rewrite(archive, first)
    plain = gzip.decompress(archive.read_bytes()).rstrip(b"\0")
    plain += bytes(-len(plain) % 512)
    archive.write_bytes(gzip.compress(plain + bomb.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20)))
    assert refusal(archive) == "labels.txt has 8,589,934,591 bytes, not 8"
    endless = [member(f"folder{number}", type=tarfile.DIRTYPE, mode=0o755) for number in range(2001)]
    rewrite(archive, endless)
    assert refusal(archive) == "it holds more than 1,000 files"


def test_what_hides_behind_the_end(archive: Path) -> None:
    """GNU tar goes on there with --ignore-zeros."""
    hidden, content = member("evil", b"x")
    plain = gzip.decompress(archive.read_bytes())
    archive.write_bytes(gzip.compress(plain + hidden.tobuf(tarfile.USTAR_FORMAT) + content.ljust(512, b"\0")))
    assert refusal(archive) == "it goes on behind its end"


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "a//b", ".ssh/config", "-rf", "a b", "a\nb", "a;b", "$(x)", "venv/x"]
)
def test_a_listing_with_a_path_that_leads_elsewhere(directory: Path, archive: Path, name: str) -> None:
    def add(table: dict[str, Any]) -> None:
        table["files"][name] = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}

    rewrite(archive, relist(members_of(archive), add))
    why = f"bundle.json has a fault: files: must not name {name!r}"
    assert refusal(archive) == why
    table = json.loads((directory / MANIFEST).read_text())
    add(table)
    (directory / MANIFEST).write_text(json.dumps(table))
    assert refusal(directory) == why
    assert name == "venv/x" or not is_safe_path(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "bundle.json has a fault: format_version: is 2; this emb reads 1"),
        ({"name": "a/b"}, "bundle.json has a fault: name: must consist of letters, digits, '.', '_', '+' and '-'"),
        ({"model": "other.tflite"}, "bundle.json has a fault: files: lacks 'other.tflite'"),
        ({"mode": "reference"}, "bundle.json has a fault: golden: lacks the outputs of litert (reference)"),
        ({"extra": 1}, "bundle.json has a fault: extra: is unknown"),
        ({"name": "other"}, "it is of other-rpi4 and holds 'net-int8-rpi4/bundle.json'"),
    ],
)
def test_a_listing_that_contradicts_itself(archive: Path, change: dict[str, Any], message: str) -> None:
    rewrite(archive, relist(members_of(archive), lambda table: table.update(change)))
    assert refusal(archive).startswith(message)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_listing_that_is_no_json_of_a_table(directory: Path, content: bytes) -> None:
    (directory / MANIFEST).write_bytes(content)
    assert refusal(directory).startswith("bundle.json ")


def test_the_listing_comes_first(archive: Path) -> None:
    members = members_of(archive)
    rewrite(archive, members[::-1])
    assert refusal(archive) == f"its first file is '{TOP}/run.py', not bundle.json"
    rewrite(archive, [])
    assert refusal(archive) == "it holds no bundle.json"


def test_archives_that_are_damaged(archive: Path) -> None:
    whole = archive.read_bytes()
    for length in range(0, len(whole), 97):
        archive.write_bytes(whole[:length])
        assert refusal(archive)
    for position in range(10, len(whole), 41):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        archive.write_bytes(damaged)
        assert refusal(archive)


def test_links_in_a_directory(directory: Path, tmp_path: Path) -> None:
    content = (directory / "labels.txt").read_bytes()
    (tmp_path / "elsewhere").write_bytes(content)
    (directory / "labels.txt").unlink()
    (directory / "labels.txt").symlink_to(tmp_path / "elsewhere")
    assert refusal(directory) == "labels.txt is a link"
    (directory / "labels.txt").unlink()
    (directory / "labels.txt").write_bytes(content)
    (directory / "golden").rename(tmp_path / "golden")
    (directory / "golden").symlink_to(tmp_path / "golden")
    assert refusal(directory) == "golden/images.npy is a link"


def test_what_else_lies_in_a_directory(directory: Path) -> None:
    for name in ("__pycache__", ".venv", "venv"):
        (directory / name).mkdir()
        (directory / name / "anything").write_text("x")
    assert open_bundle(directory)
    (directory / "golden" / "venv").mkdir()
    (directory / "golden" / "venv" / "x").write_text("x")
    assert refusal(directory) == "golden/venv/x is not listed in bundle.json"
    (directory / "golden" / "venv" / "x").unlink()
    os.mkfifo(directory / "pipe")
    assert refusal(directory) == "pipe is not listed in bundle.json"
    (directory / "pipe").unlink()
    (directory / "numpy").symlink_to("/tmp")
    assert refusal(directory) == "numpy is not listed in bundle.json"


def test_what_is_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        open_bundle(tmp_path / "none.tar.gz")
    assert str(caught.value) == (
        f"cannot read the bundle {tmp_path}/none.tar.gz\n  why: no such file or directory\n"
        "  fix: check the path, or make it: emb bundle"
    )
    with pytest.raises(ModelError) as caught:
        open_bundle(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is no bundle\n  why: it holds no bundle.json\n  fix: give what emb bundle has made"
    )


def test_a_bundle_that_changes_after_it_was_opened(directory: Path, archive: Path, tmp_path: Path) -> None:
    opened = open_bundle(archive)
    rewrite(archive, relist(members_of(archive), lambda table: table.update(runtime="litert", compiled="run.py")))
    with pytest.raises(ModelError, match="is no bundle to trust") as caught:
        opened.unpack(tmp_path / "out")
    assert caught.value.why == "it is not the one that was opened"
    opened = open_bundle(directory)
    (directory / "labels.txt").write_bytes(b"dog\ncat\n")
    with pytest.raises(ModelError, match="is no bundle to trust"):
        opened.unpack(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "sound"]
