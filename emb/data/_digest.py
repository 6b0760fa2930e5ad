"""What stands for a data set's content in the cache: a digest of its files. Decodes nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emb.data._facts import facts_of
from emb.data._files import sha256
from emb.data._locate import Located
from emb.data._tree import Tree


def digest_of(located: Located) -> str:
    """sha256 (hex): of the file's bytes if there is one, else over (relative path, sha256) of all, in order of path.

    Neither the place nor the dates of the files matter; their names do, because a name can be a label. The sha256 of
    each image of a folder is remembered (emb.data._facts), so that 150 GB are read once and not at every build.
    """
    if isinstance(located.files, Tree):
        names: Iterable[str] = (located.files.relative(index) for index in range(len(located.files)))
        return _joined(names, contents(located.files))
    # sha256 lets go of the interpreter lock, so threads help with CIFAR-10's 184 MB.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        hashes = list(pool.map(sha256, located.files))
    if len(hashes) == 1:
        return hashes[0]
    directory = located.directory
    if directory is None:
        raise ValueError(f"{located.name} was not found and has no digest")
    pairs = sorted(
        (path.relative_to(directory).as_posix(), one) for path, one in zip(located.files, hashes, strict=True)
    )
    return _joined((name for name, _ in pairs), (one for _, one in pairs))


def contents(files: Iterable[Path]) -> Iterable[str]:
    """sha256 (hex) of each file, remembered from the last time if it has not changed since."""
    return (fact.hex() for fact in facts_of(files, "sha256", lambda path: bytes.fromhex(sha256(path))))


def _joined(names: Iterable[str], hashes: Iterable[str]) -> str:
    total = hashlib.sha256()
    for name, content in zip(names, hashes, strict=True):
        total.update(os.fsencode(name) + b"\0" + content.encode() + b"\n")
    return total.hexdigest()
