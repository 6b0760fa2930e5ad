"""The one form of .tar.gz that bundles have: plain files and folders, USTAR headers, no times, no owners.

Reading trusts nothing: every header is looked at before its content is read. Knows no manifest.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from emb.errors import ModelError
from emb.store import explained

MOST_FILES = 1000
_MOST_PADDING_BYTES = 2 * tarfile.RECORDSIZE
_BLOCK = tarfile.BLOCKSIZE
_MODES = (0o644, 0o755)


def write(directory: Path, archive: Path, *, top: str, names: Sequence[str], executable: Collection[str]) -> None:
    """The files `names` of a directory, in this order, below a folder `top`. The archive appears whole or not at all.

    executable: names of files with the mode 0755. Raises StoreError.
    """
    with explained("write", archive):
        descriptor, fresh = tempfile.mkstemp(prefix=f".{archive.name}.new-", dir=archive.parent)
        try:
            with os.fdopen(descriptor, "wb") as raw:
                _write_members(raw, directory, top=top, names=names, executable=executable)
            Path(fresh).chmod(0o644)
            Path(fresh).replace(archive)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise


def _write_members(
    raw: BinaryIO, directory: Path, *, top: str, names: Sequence[str], executable: Collection[str]
) -> None:
    folders = sorted({parent.as_posix() for name in names for parent in Path(name).parents} - {"."})
    with (
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=9) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in ["", *folders]:
            folder = tarfile.TarInfo(f"{top}/{name}".rstrip("/"))
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name in names:
            content = (directory / name).read_bytes()
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mode = len(content), 0o755 if name in executable else 0o644
            tar.addfile(member, io.BytesIO(content))


def refused(path: Path, why: str) -> ModelError:
    """The error for a bundle that is not what it says."""
    return ModelError(f"{path} is no bundle to trust", why=why, fix="make the bundle again, and copy it once more")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What the file system says becomes a ModelError."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ModelError(
            f"cannot read the bundle {path}", why=why, fix="check the path, or make it: emb bundle"
        ) from error


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The unpacked bytes of a .tar.gz. Raises ModelError for what is none."""
    with readable(path), path.open("rb") as packed:
        try:
            yield cast("BinaryIO", gzip.GzipFile(fileobj=packed))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise refused(path, f"it is no whole .tar.gz: {error}") from error


def members(stream: BinaryIO, path: Path) -> Iterator[tarfile.TarInfo]:
    """The headers, one by one; the caller has read a file's content before it asks for the next.

    tarfile's own reader would follow extended headers of any size; here a header is 512 bytes and speaks for itself.
    """
    for _ in range(2 * MOST_FILES):
        block = stream.read(_BLOCK)
        if len(block) != _BLOCK:
            raise refused(path, "it ends too early")
        if not block.strip(b"\0"):
            # Nothing may hide behind the end, where another reader would go on.
            rest = stream.read(_MOST_PADDING_BYTES)
            if rest.strip(b"\0") or stream.read(1):
                raise refused(path, "it goes on behind its end")
            return
        yield _header(block, path)
    raise refused(path, f"it holds more than {MOST_FILES:,} files")


def _header(block: bytes, path: Path) -> tarfile.TarInfo:
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise refused(path, f"it is no tar archive that emb wrote: {error}") from error
    if member.type not in (tarfile.REGTYPE, tarfile.DIRTYPE):
        raise refused(path, f"{member.name!r} is neither a file nor a folder")
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise refused(path, f"{member.name!r} leads out of the bundle")
    if member.size < 0 or (member.isdir() and member.size):
        raise refused(path, f"{member.name!r} has an impossible size")
    if member.mode not in _MODES:
        raise refused(path, f"{member.name!r} has the mode {member.mode:o}")
    return member


def content_of(stream: BinaryIO, member: tarfile.TarInfo, path: Path) -> bytes:
    """A file's content, right after its header was read."""
    content = stream.read(member.size)
    padding = stream.read(-member.size % _BLOCK)
    if len(content) != member.size or len(padding) != -member.size % _BLOCK:
        raise refused(path, "it ends too early")
    return content
