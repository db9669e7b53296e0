"""Remembers what was found in which content, so that a second check reads almost nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from automl_pt.check.facts import VERSION, Facts
from automl_pt.errors import OutputError
from automl_pt.files import cache_folder

#: path, size in bytes, modification time in nanoseconds, inode: while these stay, so does the content
Stamp = tuple[bytes, int, int, int]

#: a file changed less than this long ago may change again without its time stamp telling
_SETTLED_NS = 2_000_000_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, inode INTEGER, sha256 TEXT);
CREATE TABLE IF NOT EXISTS facts (sha256 TEXT, version TEXT, facts TEXT, PRIMARY KEY (sha256, version)) WITHOUT ROWID;
"""


def stamp(path: Path, status: os.stat_result) -> Stamp:
    """Return what tells a file's content without reading it."""
    return os.fsencode(path), status.st_size, status.st_mtime_ns, status.st_ino


class Memory:
    """An SQLite file in the cache folder, for several threads and processes; a context manager that closes it.

    Every entry is kept at once, so that a check cut short is gone on with, and two do not wait for each other.
    Methods raise OutputError when the file cannot be read or written any more.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._one_thread = threading.Lock()
        self._path = path or cache_folder() / "check" / "facts.sqlite"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(self._path)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(self._path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._database.close()

    def recall(self, stamps: Iterable[Stamp]) -> dict[bytes, tuple[str, Facts]]:
        """Return digest and facts by path, of files that have not changed since they were examined."""
        known: dict[bytes, tuple[str, Facts]] = {}
        query = (
            "SELECT sha256, facts FROM files JOIN facts USING (sha256) "
            "WHERE path = ? AND size = ? AND mtime = ? AND inode = ? AND version = ?"
        )
        for one in stamps:
            rows = self._execute(query, (*one, VERSION))
            if rows:
                known[one[0]] = rows[0][0], Facts(**json.loads(rows[0][1]))
        return known

    def facts(self, digest: str) -> Facts | None:
        """Return what was found in a content, wherever it lay."""
        query = "SELECT facts FROM facts WHERE sha256 = ? AND version = ?"
        rows = self._execute(query, (digest, VERSION))
        return Facts(**json.loads(rows[0][0])) if rows else None

    def keep(self, one: Stamp, digest: str, facts: Facts) -> None:
        """Remember what was found; a file changed just now is looked at again next time."""
        content = json.dumps(facts.to_dict())
        self._execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (digest, VERSION, content))
        if time.time_ns() - one[2] > _SETTLED_NS:
            self._execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", (*one, digest))

    def _execute(self, query: str, values: tuple[object, ...]) -> list[tuple[str, ...]]:
        try:
            with self._one_thread:
                return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _unusable(self._path, error) from error


def _open(path: Path) -> sqlite3.Connection:
    """Open the file; what is damaged or not ours is put aside, as all of it can be found again."""
    try:
        return _connected(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        os.replace(path, path.with_suffix(".damaged"))
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.executescript(_SCHEMA)
    return database


def _unusable(path: Path, error: Exception) -> OutputError:
    return OutputError(
        "the check's memory must be readable and writable",
        given=f"{path}: {error}",
        remedy="free some space, delete the file (all of it can be found again), or set AUTOML_PT_CACHE",
    )
