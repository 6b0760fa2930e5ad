"""Bytes of data files: reading, hashing, and the words for a damaged one and for a list of them. Knows no format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emb.errors import DataError
from emb.store import sha256_of_file

_FEW = 3


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


def sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes. Raises DataError if it cannot be read."""
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise unreadable(path, error) from error


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_FEW])
    return f"{shown} and {len(names) - _FEW:,} more" if len(names) > _FEW else shown
