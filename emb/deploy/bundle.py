"""Writes a bundle's directory and archive, and opens them without trusting them. Knows no model and no board.

An archive is opened as whoever made it would want the least: every header is looked at before its content is read,
nothing but the plain files that bundle.json lists is accepted, and nothing is written to the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from emb.deploy.archive import MOST_FILES, content_of, members, readable, refused, unpacked, write
from emb.errors import ModelError, SpecError, StoreError
from emb.spec.bundle import IGNORED_DIRECTORIES, MANIFEST, BundleManifest, FileEntry
from emb.spec.decode import decode
from emb.store import explained, sha256_of_file

MOST_BYTES = 1 << 30
_MOST_MANIFEST_BYTES = 1 << 20
_EXECUTABLE = ("run.py",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle that was whole when it was opened. path: its directory or archive.

    digest: sha256 (hex) of bundle.json, and with it of everything that the bundle holds.
    manifest_bytes: those of bundle.json.
    """

    path: Path
    digest: str
    manifest: BundleManifest
    manifest_bytes: bytes

    def read(self, name: str) -> bytes:
        """One file of the bundle, which must still be the one that was opened. Raises ModelError otherwise."""
        if name == MANIFEST:
            return self.manifest_bytes
        for found, content in self.contents():
            if found == name:
                return content
        raise ModelError(f"{self.path} has no file {name}", fix="bundle.json lists them")

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """(name, content) of every listed file, bundle.json left out. Raises ModelError as `open_bundle`."""
        if self.path.is_dir():
            for name, entry in sorted(self.manifest.files.items()):
                with readable(self.path):
                    content = _listed_file(self.path, name, entry)
                yield name, content
            return
        with unpacked(self.path) as stream:
            digest = hashlib.sha256(_manifest_member(stream, self.path)[1]).hexdigest()
            if digest != self.digest:
                raise refused(self.path, "it is not the one that was opened")
            yield from _listed_members(stream, self.manifest, self.path)

    def unpack(self, directory: Path) -> None:
        """Write the bundle as a new directory, whole or not at all.

        Raises StoreError if there is something already or the place cannot be written, ModelError as `open_bundle`.
        """
        if directory.exists():
            raise StoreError(f"{directory} exists already", fix="choose another place, or remove it")
        with explained("write", directory):
            directory.parent.mkdir(parents=True, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}.new-", dir=directory.parent))
            try:
                _put(fresh, MANIFEST, self.manifest_bytes)
                for name, content in self.contents():
                    _put(fresh, name, content)
                set_modes(fresh)
                fresh.rename(directory)
            except BaseException:
                shutil.rmtree(fresh, ignore_errors=True)
                raise


def open_bundle(path: Path) -> Bundle:
    """The bundle in a directory or a .tar.gz, after every byte of it was checked against bundle.json.

    Refuses paths that lead elsewhere, links and devices, names that are there twice or not listed, other contents
    and sizes than those listed, and whatever is larger than MOST_BYTES. Writes nothing.
    Raises ModelError.
    """
    if path.is_dir():
        with readable(path):
            return _open_directory(path)
    with unpacked(path) as stream:
        manifest, content = _manifest_member(stream, path)
        for _ in _listed_members(stream, manifest, path):
            pass
    return Bundle(path=path, digest=hashlib.sha256(content).hexdigest(), manifest=manifest, manifest_bytes=content)


def entries_of(directory: Path) -> Mapping[str, FileEntry]:
    """The entries for bundle.json of every file that lies in a directory."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): FileEntry(bytes=path.stat().st_size, sha256=sha256_of_file(path))
        for path in files
    }


def manifest_text(manifest: BundleManifest) -> bytes:
    """The bytes of bundle.json: the same for the same manifest."""
    return (json.dumps(manifest.to_json(), indent=2, sort_keys=True) + "\n").encode()


def set_modes(directory: Path) -> None:
    """0755 for folders and what is run, 0644 for every other file, whatever the umask was."""
    directory.chmod(0o755)
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.name in _EXECUTABLE else 0o644)


def write_archive(directory: Path, archive: Path, *, manifest: BundleManifest) -> None:
    """The bundle in `directory` as a .tar.gz, which appears whole or not at all: the same bytes for the same files.

    bundle.json comes first, so that every other member can be judged before it is read. Raises StoreError.
    """
    names = [MANIFEST, *sorted(manifest.files)]
    write(directory, archive, top=manifest.directory_name, names=names, executable=_EXECUTABLE)


def _put(directory: Path, name: str, content: bytes) -> None:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _decoded(content: bytes, path: Path) -> BundleManifest:
    try:
        table = json.loads(content)
        manifest = decode(BundleManifest, table if isinstance(table, dict) else {}, source=MANIFEST)
    except (ValueError, RecursionError) as error:
        raise refused(path, f"{MANIFEST} is damaged: {error}") from error
    except SpecError as error:
        raise refused(path, f"{error.what}: {error.why}") from error
    if len(manifest.files) > MOST_FILES or sum(entry.bytes for entry in manifest.files.values()) > MOST_BYTES:
        raise refused(path, f"it holds more than {MOST_FILES:,} files or {MOST_BYTES:,} bytes")
    return manifest


def _open_directory(path: Path) -> Bundle:
    place = path / MANIFEST
    if place.is_symlink() or not place.is_file():
        raise ModelError(f"{path} is no bundle", why=f"it holds no {MANIFEST}", fix="give what emb bundle has made")
    if place.stat().st_size > _MOST_MANIFEST_BYTES:
        raise refused(path, f"{MANIFEST} is larger than {_MOST_MANIFEST_BYTES:,} bytes")
    content = place.read_bytes()
    manifest = _decoded(content, path)
    for name, entry in sorted(manifest.files.items()):
        _listed_file(path, name, entry)
    known = {*manifest.files, MANIFEST}
    for name in _names_in(path):
        if name not in known:
            raise refused(path, f"{name} is not listed in {MANIFEST}")
    return Bundle(path=path, digest=hashlib.sha256(content).hexdigest(), manifest=manifest, manifest_bytes=content)


def _names_in(directory: Path) -> Iterator[str]:
    """Everything but folders, links to folders included."""
    for folder, folders, files in os.walk(directory):
        inside = Path(folder).relative_to(directory)
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        own = IGNORED_DIRECTORIES if inside == Path() else ()
        folders[:] = sorted(set(folders) - set(links) - set(own))
        yield from ((inside / name).as_posix() for name in sorted([*files, *links]))


def _listed_file(directory: Path, name: str, entry: FileEntry) -> bytes:
    """A listed file's content. No link is followed, on the way to it or at its end."""
    path = directory / name
    for part in (path, *path.relative_to(directory).parents):
        if (directory / part).is_symlink() and directory / part != directory:
            raise refused(directory, f"{name} is a link")
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        raise refused(directory, f"{name} is missing") from None
    if not stat.S_ISREG(status.st_mode):
        raise refused(directory, f"{name} is no regular file")
    if status.st_size != entry.bytes:
        raise refused(directory, f"{name} has {status.st_size:,} bytes, not {entry.bytes:,}")
    content = path.read_bytes()
    _require_sha256(content, name, entry, directory)
    return content


def _require_sha256(content: bytes, name: str, entry: FileEntry, path: Path) -> None:
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise refused(path, f"{name} is not what {MANIFEST} lists: its sha256 differs")


def _manifest_member(stream: BinaryIO, path: Path) -> tuple[BundleManifest, bytes]:
    """bundle.json, which comes before every other file of the archive."""
    for member in members(stream, path):
        if member.isdir():
            continue
        if member.name.count("/") != 1 or not member.name.endswith(f"/{MANIFEST}"):
            raise refused(path, f"its first file is {member.name!r}, not {MANIFEST}")
        if member.size > _MOST_MANIFEST_BYTES:
            raise refused(path, f"{MANIFEST} is larger than {_MOST_MANIFEST_BYTES:,} bytes")
        content = content_of(stream, member, path)
        manifest = _decoded(content, path)
        if member.name != f"{manifest.directory_name}/{MANIFEST}":
            raise refused(path, f"it is of {manifest.directory_name} and holds {member.name!r}")
        return manifest, content
    raise refused(path, f"it holds no {MANIFEST}")


def _listed_members(stream: BinaryIO, manifest: BundleManifest, path: Path) -> Iterator[tuple[str, bytes]]:
    missing = dict(manifest.files)
    for member in members(stream, path):
        top, _, name = member.name.partition("/")
        if top != manifest.directory_name or member.isdir():
            raise refused(path, f"{member.name!r} is not listed in {MANIFEST}")
        entry = missing.pop(name, None)
        if entry is None:
            twice = name in manifest.files or name == MANIFEST
            raise refused(path, f"{name!r} is there twice" if twice else f"{name!r} is not listed in {MANIFEST}")
        if member.size != entry.bytes:
            raise refused(path, f"{name} has {member.size:,} bytes, not {entry.bytes:,}")
        content = content_of(stream, member, path)
        _require_sha256(content, name, entry, path)
        yield name, content
    if missing:
        raise refused(path, f"{min(missing)} is missing")
