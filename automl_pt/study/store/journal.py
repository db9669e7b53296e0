"""Optuna's journal file with a kernel lock, and protection against a torn last line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from automl_pt.core.files import atomic_write, output_error
from automl_pt.core.locks import locked


class RepairingJournal(JournalFileBackend):
    """A journal file whose torn last line, left by a kill or a full disk, is removed before the next write.

    Optuna skips such a line when reading, but appends to it when writing, which makes the journal unreadable. The
    fragment is moved to a file ending in `.torn`; it never contains anything acknowledged. The kernel releases the lock
    when its owner is killed, while Optuna's own lock files would remain.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.abspath(path))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(str(self._path), lock_obj=_NoLock(str(self._path)))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append complete lines, durably; raise OutputError, with the journal intact, if the disk cannot take them."""
        with locked(self._path.with_name(self._path.name + ".lock")):
            try:
                self._repair()
                super().append_logs(logs)
            except OSError as error:
                self._repair()
                raise output_error(error, self._path) from error

    def _repair(self) -> None:
        with open(self._path, "rb+") as stream:
            size = stream.seek(0, os.SEEK_END)
            end = _end_of_last_line(stream, size)
            if end == size:
                return
            stream.seek(end)
            atomic_write(self._path.with_name(self._path.name + ".torn"), stream.read())
            stream.truncate(end)
            stream.flush()
            os.fsync(stream.fileno())


class _NoLock(JournalFileOpenLock):
    """Nothing: the lock is held around the repair and the write together."""

    def acquire(self) -> bool:  # noqa: D102  # Optuna's interface
        return True

    def release(self) -> None:  # noqa: D102  # Optuna's interface
        return None


def _end_of_last_line(stream: Any, size: int, block: int = 1 << 16) -> int:
    """Return the offset after the last newline, reading backwards."""
    position = size
    while position > 0:
        start = max(0, position - block)
        stream.seek(start)
        found = stream.read(position - start).rfind(b"\n")
        if found >= 0:
            return int(start + found + 1)
        position = start
    return 0
