"""Digests of the files that a user hands over. Knows no kind of file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from emb.errors import ModelError
from emb.store import sha256_of_file


def digest_of_path(path: Path) -> str:
    """sha256 (hex) of a file, or of all files of a folder by name and content."""
    try:
        if path.is_file():
            return sha256_of_file(path)
        digest = hashlib.sha256()
        for file in sorted(child for child in path.rglob("*") if child.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of_file(file)}\n".encode())
        return digest.hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {path}", why=(error.strerror or str(error)).lower(), fix="check it") from error
