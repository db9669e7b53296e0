"""Opens a study's storage so that a kill, a power cut or a dropped connection loses nothing that was acknowledged.

SQLite (the default) runs with `synchronous=FULL` on every connection, in WAL mode on a local disk. `journal:PATH` is
Optuna's journal file, repaired and with our own lock. PostgreSQL and MySQL are given by URL. Storages that unpickle
what they read are refused, because anyone who can write there could run code here. No message contains a password.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.pool import StaticPool

from automl_pt.core.errors import StorageError
from automl_pt.core.file_systems import network_note, network_type
from automl_pt.core.files import atomic_write
from automl_pt.core.installation import how_to_install
from automl_pt.core.locks import locked, require_record_locks
from automl_pt.core.text import printable
from automl_pt.study.store.errors import translated

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, Engine

T = TypeVar("T")
#: default drivers, and the extra that installs them
DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}
SCHEMA_LOCK = 20021116
ATTEMPTS = 8
#: messages of non-retryable errors
HOPELESS = ("authentication failed", "does not exist", "Access denied", "Unknown database", "disk is full")


def default_url(directory: Path) -> str:
    """Return the URL of the SQLite file in a study's folder."""
    return f"sqlite:///{(directory / 'study.db').absolute()}"


def open_storage(url: str) -> BaseStorage:
    """Open the storage, and create its tables once, even if several processes start at the same time.

    Raises StorageError for a URL that cannot be used, a file that is not a study's, or a server that does not answer.
    """
    if is_journal(url):
        return _open_journal(url)
    parsed = parse_url(url)
    with translated(shown(url)):
        return _open_sqlite(parsed) if parsed.get_backend_name() == "sqlite" else _open_server(parsed)


def close_storage(storage: BaseStorage) -> None:
    """Close a storage's connections; journal files have none."""
    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


def shown(url: str) -> str:
    """Return the URL with its password hidden, in the user part and in the query."""
    if url.startswith("journal:"):
        return url
    try:
        parsed = _read(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return "an invalid URL"
    secret = {key: "***" for key in parsed.query if "pass" in key.lower() or "secret" in key.lower()}
    return parsed.update_query_dict(secret).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def is_shared(url: str) -> bool:
    """Return whether several coordinators can work on a storage of this kind."""
    return urlsplit(url).scheme.partition("+")[0] in DRIVERS


def files_of(url: str, study: str) -> tuple[Path, ...]:
    """Return the files that opening a storage for `study` creates, without folders; none for a server.

    Raises StorageError for a URL that cannot be used.
    """
    lock = lock_file(url, study) if not is_shared(url) else None
    if lock is None:
        parse_url(url)
        return ()
    path = lock.with_name(lock.name.removesuffix(f".{study}.lock"))
    ends = ("", "-wal", "-shm", "-journal", ".lock")
    return (*(path.with_name(path.name + end) for end in ends), path.with_name(f".{path.name}.tmp"), lock)


def lock_file(url: str, study: str) -> Path | None:
    """Return the lock file of `study`'s only coordinator, beside a file storage; None if there is no file."""
    if url.startswith("journal:"):
        path = journal_path(url)
    else:
        database = parse_url(url).database if url.startswith("sqlite") else None
        if not database or database == ":memory:":
            return None
        path = Path(database)
    path = path.resolve()  # so that a link uses the same lock
    return path.with_name(f"{path.name}.{study}.lock")


def storage_note(url: str) -> str | None:
    """Return a warning if a file storage is on a network file system."""
    if url.startswith("journal:"):
        return network_note(journal_path(url).absolute(), "the study's journal")
    database = parse_url(url).database if url.startswith("sqlite") else None
    if not database or database == ":memory:":
        return None
    return network_note(Path(database).absolute(), "the study's SQLite database")


def server_engine(url: str) -> Engine:
    """Return connections to a shared storage's server, for locks."""
    return _engine(parse_url(url))


def _read(url: str) -> URL:
    """Split a URL into its parts; raise ValueError if part of a password would be read as host and database."""
    parsed = make_url(url)
    if parsed.host is not None and "@" in f"{parsed.host}{parsed.database}":
        raise ValueError("the password contains an @")
    return parsed


def parse_url(url: str) -> URL:
    """Return the URL of a supported database, with its driver; raise StorageError for any other."""
    scheme = url.partition(":")[0].lower()
    if "redis" in scheme or scheme in {"grpc", "http", "https"}:
        raise StorageError(
            "this kind of storage could run code when read",
            given=f"a storage of kind {scheme!r}, whose snapshots are pickles or whose server asks for no password",
            remedy="use sqlite:///FILE, journal:FILE, postgresql://... or mysql://...",
        )
    try:
        parsed = _read(url)
        backend = parsed.get_backend_name()
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise StorageError(
            "the storage is not a valid URL",
            given="the text is not shown, because it may hold a password",
            remedy="write sqlite:///FILE, journal:FILE, postgresql://USER:PASSWORD@HOST/DATABASE or mysql://..., and "
            "in a password %40 for @, %2F for / and %3A for :",
        ) from None
    if backend != "sqlite" and backend not in DRIVERS:
        raise StorageError(
            "the storage is not SQLite, a journal file, PostgreSQL or MySQL",
            given=f"{backend!r}",
            remedy="use sqlite:///FILE, journal:FILE, postgresql://... or mysql://...",
        )
    return parsed.set(drivername=DRIVERS[backend]) if parsed.drivername == backend and backend in DRIVERS else parsed


class DurableConnection(sqlite3.Connection):
    """A SQLite connection whose acknowledged writes survive a power cut."""

    journal = "WAL"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("PRAGMA busy_timeout=60000")
        self.execute(f"PRAGMA journal_mode={self.journal}")
        self.execute("PRAGMA synchronous=FULL")


class NetworkConnection(DurableConnection):
    """The same for a file on NFS, Lustre and the like, where WAL does not work: it shares memory between processes."""

    journal = "DELETE"


def _open_sqlite(url: URL) -> BaseStorage:
    if not url.database or url.database == ":memory:":
        raise StorageError(
            "an in-memory database keeps no study", given=url.render_as_string(), remedy="write sqlite:///FILE"
        )
    path = Path(url.database).absolute()
    # the lock serialises processes that create the tables or turn WAL on, because both would fail at the same time
    with locked(path.with_name(path.name + ".lock")):
        require_record_locks(path)
        if path.exists() and path.stat().st_size:
            require_ours(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True), path)
        if is_new := not path.exists():
            atomic_write(path, _empty_study())
        kind = DurableConnection if network_type(path) is None else NetworkConnection
        options = {"connect_args": {"factory": kind, "timeout": 60}}
        return RDBStorage(f"sqlite:///{path}", engine_kwargs=options, skip_compatibility_check=is_new)


@cache
def _empty_study() -> bytes:
    """Return the SQLite file of a storage without a study, which Optuna takes long to make."""
    options = {"poolclass": StaticPool}  # one connection, because each has an in-memory database of its own
    storage = RDBStorage("sqlite://", engine_kwargs=options, skip_compatibility_check=True)
    connection = storage.engine.raw_connection().driver_connection
    assert isinstance(connection, sqlite3.Connection)
    content = connection.serialize()
    close_storage(storage)
    return content


def require_ours(connection: sqlite3.Connection, path: Path, *, without_code: bool = False) -> None:
    """Raise StorageError if the database is another program's, without changing it. Closes the connection.

    With `without_code` views and triggers are refused too, because they are code from the file's author.
    """
    with closing(connection):
        kinds = dict(connection.execute("SELECT name, type FROM sqlite_master"))
    tables = {name for name, kind in kinds.items() if kind == "table"}
    code = sorted(name for name, kind in kinds.items() if kind in ("view", "trigger"))
    if code and without_code:
        raise StorageError(
            "the database holds views or triggers, which no study has",
            given=printable(f"{path}: {', '.join(code[:5])}"),
            remedy="restore the file from a copy that automl-pt has written",
        )
    if tables and "studies" not in tables:
        raise StorageError(
            "the database is not a study's",
            given=printable(f"{path} holds the tables {', '.join(sorted(tables)[:5])}"),
            remedy="name another file",
        )


SERVER_OPTIONS = {"pool_pre_ping": True, "pool_recycle": 1800}
#: seconds to connect to a server, and, for reading only, for each answer
CONNECT_SECONDS, ANSWER_SECONDS = 10, 60


def connect_limit(url: URL, *, answers: bool = True) -> dict[str, Any]:
    """Return the driver's options that limit waiting for a server; the URL's own options take precedence.

    With `answers` the limit applies to each answer too, if the driver supports that.
    """
    limits: dict[str, Any] = {}
    if url.get_driver_name() in ("psycopg", "psycopg2", "pymysql", "mysqldb"):
        limits["connect_timeout"] = CONNECT_SECONDS
    if url.get_driver_name() in ("pymysql", "mysqldb") and answers:
        limits |= {"read_timeout": ANSWER_SECONDS, "write_timeout": ANSWER_SECONDS}
    return {name: value for name, value in limits.items() if name not in url.query}


def _open_server(url: URL) -> BaseStorage:
    text = url.render_as_string(hide_password=False)
    engine = _engine(url)
    try:
        with retrying(engine.connect) as connection, _schema_lock(connection, url):
            options = {**SERVER_OPTIONS, "connect_args": connect_limit(url, answers=False)}
            return RDBStorage(text, engine_kwargs=options)
    finally:
        engine.dispose()


def _engine(url: URL) -> Engine:
    try:
        return sqlalchemy.create_engine(url, **SERVER_OPTIONS, connect_args=connect_limit(url, answers=False))
    except ImportError as error:
        raise driver_missing(url, error) from error


def driver_missing(url: URL, error: ImportError) -> StorageError:
    """Return the error that names the extra with a storage's driver."""
    extra = "mysql" if url.get_backend_name() in ("mysql", "mariadb") else "postgresql"
    return StorageError("the storage's driver is not installed", given=str(error), remedy=how_to_install(extra))


class _schema_lock:  # noqa: N801  # used as a function
    """Hold the server's lock while the tables are created; it is released with the connection."""

    def __init__(self, connection: Connection, url: URL) -> None:
        self._connection = connection
        postgresql = url.get_backend_name() == "postgresql"
        self._take = (
            f"SELECT pg_advisory_lock({SCHEMA_LOCK})" if postgresql else f"SELECT GET_LOCK('{SCHEMA_LOCK}', 60)"
        )
        self._drop = (
            f"SELECT pg_advisory_unlock({SCHEMA_LOCK})" if postgresql else f"SELECT RELEASE_LOCK('{SCHEMA_LOCK}')"
        )

    def __enter__(self) -> None:
        self._connection.execute(sqlalchemy.text(self._take))

    def __exit__(self, *exception: object) -> None:
        self._connection.execute(sqlalchemy.text(self._drop))


def _open_journal(url: str) -> BaseStorage:
    from automl_pt.study.store.journal import RepairingJournal

    path = journal_path(url)
    try:
        return JournalStorage(RepairingJournal(path))
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(
            "the journal cannot be read",
            given=f"{path}: {error}",
            remedy="restore it from a copy, or choose another file: a damaged line in the middle cannot be repaired",
        ) from error


def is_journal(url: str) -> bool:
    """Return whether a storage is a journal file."""
    return url.partition(":")[0].lower() == "journal"


def journal_path(url: str) -> Path:
    """Return the file of a journal storage."""
    return Path(url.partition(":")[2].removeprefix("//"))


def retrying(action: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """Run `action`; retry with growing, jittered pauses for about a minute if the database is locked or unreachable."""
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, StorageInternalError) as error:
            if attempt == ATTEMPTS - 1 or any(sign in str(error) for sign in HOPELESS):
                raise
            sleep(min(20.0, 0.25 * 2**attempt) * random.uniform(0.5, 1.5))
    raise AssertionError("the loop returns or raises")
