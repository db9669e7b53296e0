"""Caches facts by content, so that a second check reads almost nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from automl_pt.check.facts import VERSION, Facts
from automl_pt.core.errors import OutputError
from automl_pt.core.file_systems import network_note
from automl_pt.core.files import CACHE_VARIABLE, cache_folder
from automl_pt.core.json_reader import parse_json
from automl_pt.core.locks import require_record_locks

#: path, size in bytes, modification time in nanoseconds, inode; the content is unchanged while these are
Stamp = tuple[bytes, int, int, int]

#: a file modified less than this long ago may change again with the same time stamp
_SETTLED_NS = 2_000_000_000
#: paths per query, because SQLite always allows 999 values
_AT_ONCE = 900

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, inode INTEGER, sha256 TEXT);
CREATE TABLE IF NOT EXISTS facts (sha256 TEXT, version TEXT, facts TEXT, PRIMARY KEY (sha256, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alike (looks TEXT, version TEXT, pairs TEXT, PRIMARY KEY (looks, version)) WITHOUT ROWID;
"""


def stamp(path: Path, status: os.stat_result) -> Stamp:
    """Return the stamp that identifies a file's content without reading it."""
    return os.fsencode(path), status.st_size, status.st_mtime_ns, status.st_ino


def open_memory() -> tuple[Memory, list[str]]:
    """Open the cache of checks in the cache folder, or in memory if the default folder cannot be written.

    Also returns notes for the user. Raises OutputError if the user chose the folder.
    """
    try:
        memory = Memory()
    except OutputError as error:
        if os.environ.get(CACHE_VARIABLE):
            raise
        return Memory(Path(":memory:")), [f"results are not cached for the next check ({error.given})"]
    note = network_note(memory.path, "the cache of checks")
    return memory, [] if note is None else [note]


class Memory:
    """An SQLite file in the cache folder, for several threads and processes; a context manager that closes it.

    Every entry is committed at once, so that an interrupted check resumes and two checks do not wait for each other.
    Methods raise OutputError if the file can no longer be read or written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._one_thread = threading.Lock()
        self.path = path or cache_folder() / "check" / "facts.sqlite"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(self.path)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._database.close()

    def recall(self, stamps: Iterable[Stamp]) -> dict[bytes, tuple[str, Facts]]:
        """Return digest and facts, by path, of files that have not changed since they were examined."""
        wanted = {one[0]: one for one in stamps}
        every, known = list(wanted), dict[bytes, tuple[str, Facts]]()
        for start in range(0, len(every), _AT_ONCE):
            paths = every[start : start + _AT_ONCE]
            query = (
                "SELECT path, size, mtime, inode, sha256, facts FROM files JOIN facts USING (sha256) "
                f"WHERE version = ? AND path IN ({','.join('?' * len(paths))})"
            )
            for path, size, mtime, inode, digest, facts in self._execute(query, (VERSION, *paths)):
                if wanted[path] == (path, size, mtime, inode):
                    known[path] = digest, Facts(**parse_json(facts))
        return known

    def facts(self, digest: str) -> Facts | None:
        """Return the facts of a content, from whichever file it was found in."""
        query = "SELECT facts FROM facts WHERE sha256 = ? AND version = ?"
        rows = self._execute(query, (digest, VERSION))
        return Facts(**parse_json(rows[0][0])) if rows else None

    def keep(self, one: Stamp, digest: str, facts: Facts) -> None:
        """Store facts; a file that has just changed is examined again next time."""
        content = json.dumps(facts.to_dict())
        self._execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (digest, VERSION, content))
        if time.time_ns() - one[2] > _SETTLED_NS:
            self._execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", (*one, digest))

    def pairs(self, key: str) -> list[tuple[int, int]] | None:
        """Return what `keep_pairs` stored under this key; None if nothing was."""
        rows = self._execute("SELECT pairs FROM alike WHERE looks = ? AND version = ?", (key, VERSION))
        return [(one, other) for one, other in parse_json(rows[0][0])] if rows else None

    def keep_pairs(self, key: str, pairs: Sequence[tuple[int, int]]) -> None:
        """Store which images look alike; `key` identifies their fingerprints, in order."""
        self._execute("INSERT OR REPLACE INTO alike VALUES (?, ?, ?)", (key, VERSION, json.dumps(pairs)))

    def _execute(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            with self._one_thread:
                return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from error


def _open(path: Path) -> sqlite3.Connection:
    """Open the file; a damaged or foreign file is renamed, because all its content can be computed again."""
    try:
        return _connected(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        os.replace(path, path.with_suffix(".damaged"))
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    if str(path) != ":memory:":
        require_record_locks(path)
    database = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.executescript(_SCHEMA)
    return database


def _unusable(path: Path, error: Exception) -> OutputError:
    return OutputError(
        "the cache of checks cannot be read or written",
        given=f"{path}: {error}",
        remedy="free some space, delete the file (its content can be computed again), or set AUTOML_PT_CACHE to a "
        "folder on a local disk",
    )
