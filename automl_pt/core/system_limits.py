"""Recognises errors that mean that a limit of the system was reached, and explains them."""

from __future__ import annotations

import errno

from automl_pt.core.errors import AutomlError

#: the remedy for each limit
FILES = "raise the limit on open files, as with `ulimit -n 1024` before the command, or use fewer --workers"
PROCESSES = "raise the limit on processes and threads, as with `ulimit -u 4096`, or use fewer --workers"


def exhausted(error: BaseException) -> AutomlError | None:
    """Return an error about open files, processes or threads if `error` or one of its causes is one; else None."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and not any(link is other for other in seen):
        remedy = _remedy(link)
        if remedy is not None:
            return AutomlError("a limit of the system was reached", given=str(link), remedy=remedy)
        seen.append(link)
        link = link.__cause__ or link.__context__
    return None


def _remedy(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return FILES
    if isinstance(error, BlockingIOError) and error.errno == errno.EAGAIN:
        return PROCESSES
    return PROCESSES if isinstance(error, RuntimeError) and "can't start new thread" in str(error) else None
