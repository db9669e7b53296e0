"""Opens a study's storage for reading only: nothing is created, written or locked, and waiting for servers is limited.

SQLite in WAL mode writes beside the database even for a reader. So a database without a log is opened as immutable,
and one with a log is copied, again whenever its files have changed.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.pool import NullPool

from automl_pt.core.errors import StorageError
from automl_pt.study.store.backends import (
    SERVER_OPTIONS,
    close_storage,
    connect_limit,
    driver_missing,
    is_journal,
    journal_path,
    parse_url,
    require_ours,
    shown,
)
from automl_pt.study.store.errors import translated

#: attempts to copy files that change meanwhile, before they are read in place
ATTEMPTS = 5
#: limit of copied bytes
MAX_COPY = 1 << 30
Stamp = tuple[tuple[int, int, int], ...]


@contextmanager
def reading(url: str) -> Iterator[BaseStorage]:
    """Open an existing storage for reading; raise StorageError if it is missing, or not a study's."""
    if is_journal(url):
        yield _open_journal(journal_path(url))
        return
    parsed = parse_url(url)
    with tempfile.TemporaryDirectory(prefix="automl-pt-", ignore_cleanup_errors=True) as folder:
        with translated(shown(url)):
            if parsed.get_backend_name() == "sqlite":
                storage = _open_sqlite(Path(parsed.database or ""), Path(folder))
            else:
                storage = _open_server(url)
        try:
            yield storage
        finally:
            close_storage(storage)


def _open_sqlite(path: Path, folder: Path) -> BaseStorage:
    files = _Files(path.absolute(), folder)
    require_ours(files.connect(), path, without_code=True)
    options = {"creator": files.connect, "poolclass": NullPool}
    return RDBStorage(f"sqlite:///{path}", engine_kwargs=options, skip_table_creation=True)


class _Files:
    """A database with its log, copied to `folder` if there is a log."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.log, self.folder = path, path.with_name(path.name + "-wal"), folder
        self._copied: Stamp = ()
        self._count = 0

    def connect(self) -> sqlite3.Connection:
        """Return a connection that writes nothing beside the database."""
        stamp = self._stamp()
        if len(stamp) == 1 or stamp[1][0] == 0:
            return _connect(self.path, "mode=ro&immutable=1")
        if stamp == self._copied or self._copy(stamp):
            return _connect(self._copy_path, "mode=rw")
        return _connect(self.path, "mode=ro")

    @property
    def _copy_path(self) -> Path:
        return self.folder / str(self._count) / "study.db"

    def _stamp(self) -> Stamp:
        """Return size, time and inode of the files; raise StorageError for anything but a regular file."""
        found = []
        for path in (self.path, self.log):
            try:
                status = path.stat()
            except FileNotFoundError:
                if path == self.path:
                    raise _absent(path, "there is no such file") from None
                continue
            if not stat.S_ISREG(status.st_mode):
                raise _absent(path, "it is not a regular file")
            found.append((status.st_size, status.st_mtime_ns, status.st_ino))
        return tuple(found)

    def _copy(self, stamp: Stamp) -> bool:
        """Copy a consistent state of database and log; return whether that succeeded."""
        for _ in range(ATTEMPTS):
            if sum(size for size, _, _ in stamp) > MAX_COPY:
                return False
            with suppress(OSError):  # no space for a copy, or the log has been removed
                shutil.rmtree(self._copy_path.parent, ignore_errors=True)
                self._count += 1
                self._copy_path.parent.mkdir()
                shutil.copyfile(self.path, self._copy_path)
                shutil.copyfile(self.log, f"{self._copy_path}-wal")
                if self._stamp() == stamp:
                    self._copied = stamp
                    return True
            stamp = self._stamp()
            if len(stamp) == 1:
                return False
        return False


def _connect(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=10)
    connection.execute("PRAGMA query_only=ON")
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def _open_server(url: str) -> BaseStorage:
    parsed = parse_url(url)
    options: dict[str, Any] = {**SERVER_OPTIONS, "connect_args": connect_limit(parsed)}
    if parsed.get_backend_name() == "postgresql":
        options["execution_options"] = {"postgresql_readonly": True}
    else:
        options["connect_args"]["init_command"] = "SET SESSION TRANSACTION READ ONLY"
    text = parsed.render_as_string(hide_password=False)
    try:
        return RDBStorage(text, engine_kwargs=options, skip_table_creation=True)
    except ImportError as error:
        raise driver_missing(parsed, error) from error


class _ReadJournal(JournalFileBackend):
    """A journal file that is never appended to."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Refuse."""
        raise StorageError(
            "A journal that is opened for reading is not written to",
            given=f"{self.path}: {len(logs)} entries",
            remedy="use `automl-pt search`, which opens it for writing",
        )


def _open_journal(path: Path) -> BaseStorage:
    path = Path(os.path.abspath(path))
    if not path.is_file():
        raise _absent(path, "there is no such file, or it is not a regular one")
    try:
        return JournalStorage(_ReadJournal(path))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(
            "the journal cannot be read",
            given=f"{path}: {error}",
            remedy="restore it from a copy: a damaged line in the middle cannot be repaired",
        ) from error


def _absent(path: Path, why: str) -> StorageError:
    return StorageError(
        "the study's storage cannot be opened",
        given=f"{path}: {why}",
        remedy="give the study's storage with --storage, or restore the file from a copy",
    )
