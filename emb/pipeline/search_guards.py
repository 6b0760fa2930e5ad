"""Who is at work on a search, and one at a time at its list of trials: by locks, which end with their process.

Two kinds, for the two kinds of storage. A process that dies, or whose machine does, holds none any more: no clock and
no heartbeat decides who is dead.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import sqlalchemy


class Guard(Protocol):
    """owner: the name of this process, under which it is seen to be alive until `close`."""

    owner: str

    def exclusively(self) -> Any:
        """A context in which no other process is that has the same guard."""

    def is_alive(self, owner: str) -> bool: ...
    def close(self) -> None: ...


class FileGuard:
    """For processes of one machine: locks on files beside `path`."""

    def __init__(self, path: Path) -> None:
        from filelock import FileLock

        self._path = path
        self.owner = secrets.token_hex(8)
        self._list = FileLock(self._file("lock"))
        self._own = FileLock(self._file(self.owner))
        self._own.acquire()

    def _file(self, name: str) -> Path:
        return self._path.with_name(f".{self._path.name}.{name}")

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        with self._list:
            yield

    def is_alive(self, owner: str) -> bool:
        from filelock import FileLock, Timeout

        if owner == self.owner:
            return True
        lock = FileLock(self._file(owner))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        self._file(owner).unlink(missing_ok=True)
        lock.release()
        return False

    def close(self) -> None:
        self._file(self.owner).unlink(missing_ok=True)
        self._own.release()


class ServerGuard:
    """For processes anywhere: PostgreSQL's advisory locks, which the server takes back when a connection ends.

    Source: PostgreSQL's documentation, section 13.3.5, "Advisory locks", of sessions.
    """

    def __init__(self, engine: sqlalchemy.Engine, *, name: str) -> None:
        """name: of what is exclusive."""
        self.owner = str(secrets.randbits(62))
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        self._engine = engine
        self._connection = self._connected()

    def _connected(self) -> sqlalchemy.Connection:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        _call(connection, "pg_advisory_lock", int(self.owner))
        return connection

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            _call(self._connection, "pg_advisory_lock", self._key)
        except SQLAlchemyError:
            # The server may have been restarted meanwhile. Who took this process for dead has its trials now.
            self._connection.close()
            self._connection = self._connected()
            _call(self._connection, "pg_advisory_lock", self._key)
        try:
            yield
        finally:
            with suppress(SQLAlchemyError):  # with the connection, the lock is gone as well
                _call(self._connection, "pg_advisory_unlock", self._key)

    def is_alive(self, owner: str) -> bool:
        if owner == self.owner:
            return True
        if not _call(self._connection, "pg_try_advisory_lock", int(owner)):
            return True
        _call(self._connection, "pg_advisory_unlock", int(owner))
        return False

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()


def _call(connection: sqlalchemy.Connection, function: str, key: int) -> Any:
    from sqlalchemy import text

    return connection.execute(text(f"SELECT {function}(:key)"), {"key": key}).scalar()
