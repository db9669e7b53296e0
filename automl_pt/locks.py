"""Locks between processes that die with their owner: the kernel drops them, so none is ever left behind."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from automl_pt.errors import OutputError
from automl_pt.files import output_error


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`; the file itself stays, empty.

    With `wait` another owner is waited for; without, OutputError says that somebody else is at work here.
    """
    stream = _opened(path, wait)
    try:
        yield
    finally:
        stream.close()


def is_locked(path: Path) -> bool:
    """Say whether another process holds the lock file `path`; the file is neither made nor written to.

    A file that cannot be opened, or is no regular file, is held by nobody.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    with open(descriptor, "rb") as stream:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and _is_held(stream)


def _opened(path: Path, wait: bool) -> IO[bytes]:
    """Return the open and locked file `path`; one that its last owner removed meanwhile is made again."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = open(path, "a+b")  # noqa: SIM115  # closed by whoever ends the lock, and the lock with it
        except OSError as error:
            raise output_error(error, path) from error
        if not _take(stream, wait):
            stream.close()
            raise OutputError(
                "one process at a time works in a folder",
                given=f"{path.parent} is in use by another process",
                remedy="wait for it or stop it, or choose another folder",
            )
        if _is(stream, path):
            return stream
        stream.close()


def _is(stream: IO[bytes], path: Path) -> bool:
    """Say whether the open file still is the one called `path`."""
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
        except OSError:
            return False
        return True

    def _is_held(stream: IO[bytes]) -> bool:
        return not _take(stream, wait=False)

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
        except OSError:  # a file system that knows no locks
            return False
        return False
