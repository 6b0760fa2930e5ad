"""Remembers what was found out about files, in one SQLite file of the cache, so that it is found out once.

A fact is known by its kind, the file's path, its length and the times of its last change of content (mtime) and of
anything (ctime), in nanoseconds. That is what rsync and git go by: a change that leaves all of them as they were would
not be seen. No tool does that by accident, since ctime cannot be set; and a file that changed within the last two
seconds is never remembered, because a second change could fall on the same tick of the file system's clock.

Knows not what the facts mean. Rows of files that are gone stay; the file may be deleted at any time.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

from emb.data._files import unreadable
from emb.errors import StoreError
from emb.store import cache_directory, explained

NAME = "files.sqlite"
# A file must have been left alone for so long before anything is remembered of it.
SETTLED_NS = 2_000_000_000
_FILES_AT_ONCE = 500  # SQLite takes 999 values in a query everywhere
_SAVE_AFTER_S = 5.0
_TIMEOUT_S = 60.0
_TABLE = (
    "CREATE TABLE IF NOT EXISTS facts (kind TEXT, path BLOB, bytes INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, "
    "fact BLOB, PRIMARY KEY (kind, path)) WITHOUT ROWID"
)

_Stamp = tuple[int, int, int]  # bytes, mtime_ns, ctime_ns
_Row = tuple[str, bytes, int, int, int, bytes]


def facts_of(files: Iterable[Path], kind: str, find_out: Callable[[Path], bytes]) -> Iterator[bytes]:
    """The fact of each file, in order: remembered, or found out now, in threads.

    kind: what is remembered, versions of the tools that decide it included.
    Memory does not grow with the number of files. Raises DataError if a file cannot be read, StoreError if the cache
    cannot, and whatever `find_out` raises; what was found out until then is kept.
    """
    waiting = iter(files)
    path = cache_directory() / NAME
    with _opened(path) as database, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        fresh: list[_Row] = []
        saved = time.monotonic()
        try:
            while batch := list(islice(waiting, _FILES_AT_ONCE)):
                stamps = [_stamp(file) for file in batch]
                known = _known(database, kind, batch, stamps)
                missing = [index for index, fact in enumerate(known) if fact is None]
                now_ns = time.time_ns()
                for index, fact in zip(missing, pool.map(find_out, [batch[index] for index in missing]), strict=True):
                    known[index] = fact
                    if max(stamps[index][1:]) + SETTLED_NS <= now_ns:
                        fresh.append((kind, os.fsencode(batch[index]), *stamps[index], fact))
                if time.monotonic() - saved > _SAVE_AFTER_S:
                    _save(database, fresh)
                    saved = time.monotonic()
                yield from (fact for fact in known if fact is not None)
        finally:
            _save(database, fresh)


def _stamp(file: Path) -> _Stamp:
    try:
        status = os.stat(file)  # noqa: PTH116  as fast as it goes
    except OSError as error:
        raise unreadable(file, error) from error
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _known(database: sqlite3.Connection, kind: str, batch: list[Path], stamps: list[_Stamp]) -> list[bytes | None]:
    """What is remembered of each file as it is now; None where that is nothing."""
    marks = ",".join("?" * len(batch))
    query = f"SELECT path, bytes, mtime_ns, ctime_ns, fact FROM facts WHERE kind = ? AND path IN ({marks})"
    names = [os.fsencode(file) for file in batch]
    found = {path: (tuple(stamp), fact) for path, *stamp, fact in database.execute(query, (kind, *names))}
    return [
        found[name][1] if name in found and found[name][0] == stamp else None
        for name, stamp in zip(names, stamps, strict=True)
    ]


def _save(database: sqlite3.Connection, rows: list[_Row]) -> None:
    """One short transaction, so that two builds at once do not wait long for each other."""
    if rows:
        with database:
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?)", rows)
        rows.clear()


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with explained("write the cache", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path, timeout=_TIMEOUT_S)) as database:
            database.execute(_TABLE)
            yield database
    except sqlite3.Error as error:
        raise StoreError(
            f"{path} cannot be used",
            why=str(error),
            fix="delete it if it is damaged (emb makes it again), or choose another place with EMB_CACHE_DIR",
        ) from error
