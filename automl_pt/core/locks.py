"""Locks between processes; the kernel releases them when their owner dies, so no stale lock remains."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from automl_pt.core.errors import NoLocksError, OutputError
from automl_pt.core.file_systems import LOCK_REMEDY
from automl_pt.core.files import output_error


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`; the file itself remains, empty.

    With `wait` this waits for another owner; without, OutputError says that the folder is in use. Raises
    NoLocksError where the file system has no locks.
    """
    stream = _opened(path, wait)
    try:
        yield
    finally:
        stream.close()


def is_locked(path: Path) -> bool:
    """Return whether another process holds the lock file `path`, without creating or writing it.

    A file that cannot be opened, or is not a regular file, counts as not held.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    with open(descriptor, "rb") as stream:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and _is_held(stream)


def _opened(path: Path, wait: bool) -> IO[bytes]:
    """Return the open and locked file `path`; create it again if its last owner has just removed it."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = open(path, "a+b")  # noqa: SIM115  # the caller closes it, which releases the lock
        except OSError as error:
            raise output_error(error, path) from error
        if not _taken(stream, path, wait):
            stream.close()
            raise OutputError(
                "this folder is in use by another process",
                given=f"{path.parent}",
                remedy="wait for that process or stop it, or choose another folder",
            )
        if _is(stream, path):
            return stream
        stream.close()


def _taken(stream: IO[bytes], path: Path, wait: bool) -> bool:
    """Lock the open file and return whether that worked; if files cannot be locked, close it and raise NoLocksError."""
    try:
        return _take(stream, wait)
    except OSError as error:
        stream.close()
        raise _no_locks(error, path) from error


def _no_locks(error: OSError, path: Path) -> NoLocksError:
    return NoLocksError(
        "this file system has no locks, which keep two processes from writing the same folder",
        given=f"{path}: {error.strerror or error}",
        remedy=LOCK_REMEDY,
    )


def require_record_locks(path: Path) -> None:
    """Raise NoLocksError if SQLite, which would only report "locked", cannot lock files beside `path`."""
    beside = path.with_name(path.name + ".lock")
    try:
        with open(beside, "a+b") as stream:
            _try_record_lock(stream)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP):
            raise _no_locks(error, beside) from error
        if error.errno not in (errno.EACCES, errno.EAGAIN):  # held by another process, so locks work
            raise output_error(error, beside) from error


def _is(stream: IO[bytes], path: Path) -> bool:
    """Return whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _take(stream: IO[bytes], wait: bool) -> bool:
        stream.seek(0)
        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EDEADLK):
                raise
            return False  # held by another process
        return True

    def _is_held(stream: IO[bytes]) -> bool:
        return not _take(stream, wait=False)

    def _try_record_lock(stream: IO[bytes]) -> None:
        """Do nothing, because SQLite uses the system's own locks on Windows."""

else:
    import fcntl

    def _take(stream: IO[bytes], wait: bool) -> bool:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def _is_held(stream: IO[bytes]) -> bool:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
        return False

    def _try_record_lock(stream: IO[bytes]) -> None:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
