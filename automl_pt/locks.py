"""Locks between processes that die with their owner: the kernel drops them, so none is ever left behind."""

from __future__ import annotations

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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a+b")  # noqa: SIM115  # closed below, after the lock is released with it
    except OSError as error:
        raise output_error(error, path) from error
    try:
        if not _take(stream, wait):
            raise OutputError(
                "one process at a time works in a folder",
                given=f"{path.parent} is in use by another process",
                remedy="wait for it or stop it, or choose another folder",
            )
        yield
    finally:
        stream.close()


if sys.platform == "win32":
    import msvcrt

    def _take(stream: IO[bytes], wait: bool) -> bool:
        stream.seek(0)
        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _take(stream: IO[bytes], wait: bool) -> bool:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True
