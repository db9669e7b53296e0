"""The mark of the pages that the tool wrote, which are the only files that it replaces."""

from __future__ import annotations

from pathlib import Path

from automl_pt.core.errors import UsageError
from automl_pt.core.text import printable

#: is in the head of every page
MARK = '<meta name="generator" content="automl-pt">'
#: bytes at the start of a file that are searched for the mark
HEAD = 2048


def require_own_page(path: Path, *, force: bool) -> None:
    """Raise UsageError, before any work, if `path` is a file that this tool did not write, unless `force` is given.

    A page of an older version has no mark and is refused, too.
    """
    if force or not path.is_file() or MARK.encode() in _head(path):
        return
    raise UsageError(
        "the output file exists, and automl-pt did not write it",
        given=f"{printable(path)} is there already",
        remedy="choose another name, or give --force",
    )


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(HEAD)
    except OSError:
        return b""  # an unreadable file is not known to be a page
