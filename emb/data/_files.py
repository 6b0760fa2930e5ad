"""Bytes of data files: reading, hashing, and the words for a damaged one. Knows no format."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emb.data._locate import Located
from emb.errors import DataError
from emb.store import sha256_of_file


def damaged(path: Path, why: str, *, fix: str = "") -> DataError:
    """The error for a file whose content is not what its format or its name promises."""
    return DataError(f"{path} is damaged", why=why, fix=fix or "replace it by an intact copy")


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file or directory that the operating system does not let us read."""
    return DataError(
        f"{path} cannot be read",
        why=(error.strerror or str(error)).lower(),
        fix="check that it exists and that you may read it",
    )


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises DataError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def digest_of(located: Located) -> str:
    """sha256 (hex): of the file's bytes if there is one, else over the sorted (relative path, sha256) of all.

    Neither the place nor the dates of the files matter; their names do, because a name can be a label.
    """
    # sha256 lets go of the interpreter lock, so threads help with CIFAR-10's 184 MB and with folders.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        hashes = list(pool.map(_sha256, located.files))
    if len(hashes) == 1:
        return hashes[0]
    if located.directory is None:
        raise ValueError(f"{located.name} was not found and has no digest")
    names = [os.fsencode(path.relative_to(located.directory).as_posix()) for path in located.files]
    total = hashlib.sha256()
    for name, content in sorted(zip(names, hashes, strict=True)):
        total.update(name + b"\0" + content.encode() + b"\n")
    return total.hexdigest()


def _sha256(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise unreadable(path, error) from error
