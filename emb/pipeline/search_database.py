"""Opens the database of a search: a file of SQLite, or PostgreSQL by URL. Knows no trial. Never tells a password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.errors import SpecError, StoreError
from emb.pipeline.search_guards import FileGuard, Guard, ServerGuard
from emb.store import explained

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy import URL

DATABASE = "search.db"
# Seconds until a server that does not answer counts as unreachable.
_CONNECT_S = 10
_POSTGRESQL: dict[str, Any] = {
    "connect_timeout": _CONNECT_S,
    # Within a minute either side sees that the other one's machine is gone.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "options": "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Of a database. url: with the password, if there is one.  shown: without."""

    url: URL
    shown: str

    @property
    def is_file(self) -> bool:
        return self.url.get_backend_name() == "sqlite"


@dataclass(frozen=True, slots=True)
class Database:
    """An open one; `close` ends this process's claims."""

    address: Address
    storage: RDBStorage
    guard: Guard

    def close(self) -> None:
        self.guard.close()
        self.storage.engine.dispose()


def address_of(storage: str | None, *, directory: Path) -> Address:
    """What `--storage` takes: postgresql://USER@HOST/NAME or sqlite:///FILE; None is a file in `directory`.

    Raises SpecError for anything else, without repeating it: it may hold a password.
    """
    from sqlalchemy import URL, make_url
    from sqlalchemy.exc import ArgumentError

    if storage is None:
        path = directory / DATABASE
        return Address(URL.create("sqlite", database=str(path)), str(path))
    try:
        url = make_url(storage)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        backend = ""
    if backend in ("postgresql", "postgres") and url.database:
        url = url.set(drivername="postgresql+psycopg")
        shown = URL.create("postgresql", username=url.username, host=url.host, port=url.port, database=url.database)
        return Address(url, shown.render_as_string(hide_password=False))
    if backend == "sqlite" and url.database and url.database != ":memory:":
        return Address(url, url.database)
    raise SpecError(
        "--storage is no database that a search can use",
        why="it is neither postgresql://USER@HOST/NAME nor sqlite:///FILE",
        fix="write it so, or leave it out: the search then keeps its trials in a file beside its builds",
    )


def open_database(address: Address, *, name: str) -> Database:
    """Connect, and make Optuna's tables where there are none. name: of the study, which is guarded.

    Raises StoreError if the database cannot be used.
    """
    with explained_failure(address, opening=True):
        if address.is_file:
            guard, storage = _open_file(address)
        else:
            guard, storage = _open_server(address, name=name)
    return Database(address, storage, guard)


def _open_file(address: Address) -> tuple[Guard, RDBStorage]:
    path = Path(str(address.url.database))
    with explained("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        guard = FileGuard(path)
    try:
        with guard.exclusively():
            return guard, _storage(address.url, {"connect_args": {"timeout": 60}})
    except BaseException:
        guard.close()
        raise


def _open_server(address: Address, *, name: str) -> tuple[Guard, RDBStorage]:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    try:
        engine = create_engine(address.url, poolclass=NullPool, connect_args=_POSTGRESQL)
    except ImportError as error:
        raise SpecError(
            f"{address.shown} needs a driver for PostgreSQL", why=str(error), fix='pip install "emb[postgresql]"'
        ) from error
    # Two that find no tables would both make them.
    tables = ServerGuard(engine, name="the tables of Optuna")
    try:
        with tables.exclusively():
            storage = _storage(address.url, {"pool_pre_ping": True, "connect_args": _POSTGRESQL})
    finally:
        tables.close()
    try:
        return ServerGuard(engine, name=name), storage
    except BaseException:
        storage.engine.dispose()
        raise


def _storage(url: URL, engine: dict[str, Any]) -> RDBStorage:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.storages.RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=engine)


@contextmanager
def explained_failure(address: Address, *, opening: bool = False) -> Iterator[None]:
    """Turns what SQLAlchemy or Optuna raise into a StoreError. opening: nothing has been done yet."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise _failure(address, error, opening=opening) from None
    except RuntimeError as error:
        # Optuna's, of tables that another version of it made.
        if not opening:
            raise
        raise _failure(address, error, opening=opening) from None


def _failure(address: Address, error: Exception, *, opening: bool) -> StoreError:
    cause = error.__cause__ if error.__cause__ is not None else error
    reason = " ".join(str(getattr(cause, "orig", None) or cause).split())
    if address.url.password:
        reason = reason.replace(str(address.url.password), "***")
    if opening:
        return StoreError(
            f"cannot use the database {address.shown}",
            why=reason,
            fix="remove the file to begin anew: what was trained is in the cache"
            if address.is_file
            else "check that the server runs and that the URL is right; nothing has been trained yet",
        )
    return StoreError(
        f"the database {address.shown} cannot be reached any more",
        why=reason,
        fix="run the same command again when it can: it goes on, and what was trained is in the cache",
    )
