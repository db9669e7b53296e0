"""Remembers what was found in which content, so that a second check reads almost nothing."""

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

#: path, size in bytes, modification time in nanoseconds, inode: while these stay, so does the content
Stamp = tuple[bytes, int, int, int]

#: a file changed less than this long ago may change again without its time stamp telling
_SETTLED_NS = 2_000_000_000
#: paths asked for in one query; SQLite takes 999 values everywhere
_AT_ONCE = 900

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, inode INTEGER, sha256 TEXT);
CREATE TABLE IF NOT EXISTS facts (sha256 TEXT, version TEXT, facts TEXT, PRIMARY KEY (sha256, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alike (looks TEXT, version TEXT, pairs TEXT, PRIMARY KEY (looks, version)) WITHOUT ROWID;
"""


def stamp(path: Path, status: os.stat_result) -> Stamp:
    """Return what tells a file's content without reading it."""
    return os.fsencode(path), status.st_size, status.st_mtime_ns, status.st_ino


def open_memory() -> tuple[Memory, list[str]]:
    """Open the memory in the cache folder; where the default folder cannot be written, one that lasts for this check.

    Returns it with what the user should know. Raises OutputError where the user named the folder.
    """
    try:
        memory = Memory()
    except OutputError as error:
        if os.environ.get(CACHE_VARIABLE):
            raise
        return Memory(Path(":memory:")), [f"nothing is remembered for the next check ({error.given})"]
    note = network_note(memory.path, "what checks remember")
    return memory, [] if note is None else [note]


class Memory:
    """An SQLite file in the cache folder, for several threads and processes; a context manager that closes it.

    Every entry is kept at once, so that a check cut short is gone on with, and two do not wait for each other.
    Methods raise OutputError when the file cannot be read or written any more.
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
        """Return digest and facts by path, of files that have not changed since they were examined."""
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
        """Return what was found in a content, wherever it lay."""
        query = "SELECT facts FROM facts WHERE sha256 = ? AND version = ?"
        rows = self._execute(query, (digest, VERSION))
        return Facts(**parse_json(rows[0][0])) if rows else None

    def keep(self, one: Stamp, digest: str, facts: Facts) -> None:
        """Remember what was found; a file changed just now is looked at again next time."""
        content = json.dumps(facts.to_dict())
        self._execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (digest, VERSION, content))
        if time.time_ns() - one[2] > _SETTLED_NS:
            self._execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", (*one, digest))

    def pairs(self, key: str) -> list[tuple[int, int]] | None:
        """Return what `keep_pairs` was given under this key; None when it was not."""
        rows = self._execute("SELECT pairs FROM alike WHERE looks = ? AND version = ?", (key, VERSION))
        return [(one, other) for one, other in parse_json(rows[0][0])] if rows else None

    def keep_pairs(self, key: str, pairs: Sequence[tuple[int, int]]) -> None:
        """Remember which of some images look alike; `key` tells what they show, in their order."""
        self._execute("INSERT OR REPLACE INTO alike VALUES (?, ?, ?)", (key, VERSION, json.dumps(pairs)))

    def _execute(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            with self._one_thread:
                return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from error


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
    if str(path) != ":memory:":
        require_record_locks(path)
    database = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.executescript(_SCHEMA)
    return database


def _unusable(path: Path, error: Exception) -> OutputError:
    return OutputError(
        "the check's memory must be readable and writable",
        given=f"{path}: {error}",
        remedy="free some space, delete the file (all of it can be found again), or set AUTOML_PT_CACHE to a folder on "
        "a disk of this machine",
    )
