"""Runs a step once: inputs -> files, content-addressed, atomic, resumable. Knows nothing of models or data.

Layout below the store's root (`$EMB_CACHE_DIR/store`, by default in the user's cache directory):

    artifacts/<key>/          the files of a finished step, and manifest.json, its provenance
    work/<key>/               a step in progress; kept after an interruption if the step can resume
    locks/<key>.lock          held while a step runs, so that two builds of the same thing do it once
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from emb.errors import StoreError

MANIFEST = "manifest.json"


def sha256_of_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: object) -> str:
    """One text for one value: sorted keys, no spaces. Raises TypeError for what JSON cannot hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@cache
def digest_of_code(*roots: Path) -> str:
    """sha256 (hex) over all Python files at or below `roots`, by relative path and content."""
    digest = hashlib.sha256()
    for root in roots:
        files = [root] if root.is_file() else sorted(root.rglob("*.py"))
        for file in files:
            digest.update(f"{root.name}/{file.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def cache_directory() -> Path:
    """Where emb keeps what it can make again: $EMB_CACHE_DIR, else $XDG_CACHE_HOME/emb, else ~/.cache/emb."""
    if own := os.environ.get("EMB_CACHE_DIR"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "emb"
    return Path.home() / ".cache" / "emb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Everything that decides what a step makes; nothing else may influence it.

    inputs: name -> content digest.  parameters: JSON values.  tools: name -> version.  code: digest of the
    step's own source.  resumable: an interrupted step continues in the folder it left behind.
    """

    name: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    resumable: bool = False

    @property
    def provenance(self) -> dict[str, Any]:
        return {
            "step": self.name,
            "inputs": dict(self.inputs),
            "parameters": dict(self.parameters),
            "tools": dict(self.tools),
            "code": self.code,
        }

    @property
    def key(self) -> str:
        """sha256 (hex) of the provenance."""
        return hashlib.sha256(canonical_json(self.provenance).encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """The files of a finished step. `files` maps names to sha256; `cached` tells whether this run made them."""

    directory: Path
    files: Mapping[str, str]
    seconds: float
    cached: bool

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) over names and contents: what a later step names as its input."""
        return hashlib.sha256(canonical_json(dict(self.files)).encode()).hexdigest()

    def path(self, name: str) -> Path:
        """Path of one file. Raises KeyError if the step made no such file."""
        if name not in self.files:
            raise KeyError(name)
        return self.directory / name


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A finished step on its way to another store. manifest: the bytes of its manifest.  files: name -> bytes."""

    key: str
    manifest: bytes
    files: Mapping[str, bytes]


@contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Turns an OSError of the file system into a StoreError that says what was being done, why not, and the fix."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or _is_full(path):
            # Libraries that write for us (HDF5, NumPy) often lose the number of the error.
            reason = "no space left on device"
            fix = "free some space, or choose another place (EMB_CACHE_DIR for the cache, --output for a build)"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            fix = "make it writable, or choose another place (EMB_CACHE_DIR for the cache, --output for a build)"
        else:
            fix = "check the path (EMB_CACHE_DIR for the cache, --output for a build)"
        raise StoreError(f"cannot {action} {path}", why=reason, fix=fix) from error


def _is_full(path: Path) -> bool:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free < 4096


class Store:
    """A folder of artifacts. Safe for several processes at once; a kill at any moment leaves it whole."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or cache_directory() / "store").absolute()

    def find(self, step: Step) -> Artifact | None:
        """The artifact of a finished step, or None. A damaged artifact is removed and counts as absent."""
        directory = self.root / "artifacts" / step.key
        try:
            manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
            files: dict[str, str] = manifest["files"]
            sound = all(sha256_of_file(directory / name) == digest for name, digest in files.items())
            seconds = float(manifest["seconds"])
        except (FileNotFoundError, NotADirectoryError):
            sound = not directory.exists()
            if sound:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            self._discard(directory)
            return None
        return Artifact(directory, files, seconds, cached=True)

    def run(self, step: Step, work: Callable[[Path], None]) -> Artifact:
        """The artifact of `step`: found, or made by `work`, which writes its files into the folder it is given.

        Whatever `work` raises is passed on; its folder is kept if the step is resumable and removed otherwise.
        Raises StoreError if the store cannot be written.
        """
        if found := self.find(step):
            return found
        from filelock import FileLock

        with explained("write the cache", self.root):
            for folder in ("artifacts", "work", "locks"):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / "locks" / f"{step.key}.lock")
            lock.acquire()
        try:
            # Another process may have finished the step while this one waited.
            return self.find(step) or self._make(step, work)
        finally:
            lock.release()

    def pack(self, key: str) -> Packed:
        """A finished step as a value, for `put` of a store on another machine. Raises StoreError if it is not there."""
        directory = self.root / "artifacts" / key
        with explained("read the cache", directory):
            manifest = (directory / MANIFEST).read_bytes()
            files = {name: (directory / name).read_bytes() for name in json.loads(manifest)["files"]}
        return Packed(key=key, manifest=manifest, files=files)

    def put(self, packed: Packed) -> None:
        """Take over what another store has packed; what is here already stays.

        Raises StoreError, and takes nothing, unless the key is that of the provenance and the files are those that the
        manifest names.
        """
        if not _is_sound(packed):
            raise StoreError(
                f"what came from another machine for {packed.key[:12]} is damaged",
                why="its files are not those that its manifest names",
                fix="run it again; if it happens again, check that machine's memory and network",
            )
        final = self.root / "artifacts" / packed.key
        with explained("write the cache", self.root):
            for folder in ("artifacts", "work"):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            arriving = Path(tempfile.mkdtemp(prefix="arriving-", dir=self.root / "work"))
            try:
                for name, content in (*packed.files.items(), (MANIFEST, packed.manifest)):
                    _write_to_disk(arriving / name, content)
                arriving.chmod(0o777 & ~_umask())
                arriving.rename(final)
            except OSError:
                # A folder that is not empty cannot be replaced: somebody else was faster.
                if not final.is_dir():
                    raise
            finally:
                shutil.rmtree(arriving, ignore_errors=True)

    def _make(self, step: Step, work: Callable[[Path], None]) -> Artifact:
        folder = self.root / "work" / step.key
        started = time.monotonic()
        with explained("write the cache", folder):
            if not step.resumable:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            try:
                work(folder)
                seconds = time.monotonic() - started
                files = _seal(folder, step, seconds)
                final = self.root / "artifacts" / step.key
                folder.rename(final)
            except BaseException:
                if not step.resumable:
                    shutil.rmtree(folder, ignore_errors=True)
                raise
        return Artifact(final, files, seconds, cached=False)

    def _discard(self, directory: Path) -> None:
        with explained("remove the damaged artifact", directory):
            # Renamed first: a reader sees the whole folder or none of it.
            (self.root / "work").mkdir(parents=True, exist_ok=True)
            grave = Path(tempfile.mkdtemp(prefix="damaged-", dir=self.root / "work"))
            try:
                directory.rename(grave / "artifact")
            except FileNotFoundError:
                return  # another process was faster
            finally:
                shutil.rmtree(grave, ignore_errors=True)


def _seal(folder: Path, step: Step, seconds: float) -> dict[str, str]:
    """Flush every file to disk and write the manifest, last. Returns name -> sha256."""
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        files[file.relative_to(folder).as_posix()] = sha256_of_file(file)
    manifest = {**step.provenance, "files": files, "seconds": round(seconds, 3)}
    with (folder / MANIFEST).open("w", encoding="utf-8") as stream:
        json.dump(manifest, stream, indent=2, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    return files


def _is_sound(packed: Packed) -> bool:
    try:
        manifest = json.loads(packed.manifest)
        files: dict[str, str] = manifest.pop("files")
        manifest.pop("seconds")
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in packed.files.items()}
        inside = all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in files)
        key = hashlib.sha256(canonical_json(manifest).encode()).hexdigest()
        return inside and files == digests and key == packed.key
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _write_to_disk(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def replace_directory(target: Path, write: Callable[[Path], None]) -> None:
    """Write a directory as a whole: `write` fills a sibling, which then takes the place of `target`.

    A kill at any moment leaves the old directory, the new one or (between two renames) none, never a mixture.
    Raises StoreError if the place cannot be written, or if something that is not a directory stands there.
    """
    target = target.absolute()
    if target.exists() and not target.is_dir():
        raise StoreError(f"{target} is not a directory", fix="remove it, or choose another place with --output")
    with explained("write", target), directory_lock(target):
        for leftover in target.parent.glob(f".{target.name}.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
        try:
            write(fresh)
            fresh.chmod(0o777 & ~_umask())
            old = fresh.with_name(fresh.name + "-old")
            if target.exists():
                target.rename(old)
            fresh.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise


@contextmanager
def directory_lock(target: Path) -> Iterator[None]:
    """Held by whoever replaces `target` or must not see it being replaced. Makes the directory above it.

    Raises StoreError if that cannot be written.
    """
    from filelock import FileLock

    target = target.absolute()
    with explained("write", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.parent / f".{target.name}.lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
