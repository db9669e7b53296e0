"""The mark by which the tool knows the pages that it wrote: those it replaces, and nobody else's file."""

from __future__ import annotations

from pathlib import Path

from automl_pt.core.errors import UsageError
from automl_pt.core.text import printable

#: stands in the head of every page
MARK = '<meta name="generator" content="automl-pt">'
#: bytes of a file in which the mark is looked for
HEAD = 2048


def require_own_page(path: Path, *, force: bool) -> None:
    """Raise UsageError, before any work, where `path` is a file that is no page of this tool, unless `force` is given.

    A page of an older version, which bears no mark, is none either.
    """
    if force or not path.is_file() or MARK.encode() in _head(path):
        return
    raise UsageError(
        "an output file is not overwritten unasked, but for a page that automl-pt wrote",
        given=f"{printable(path)} is there already",
        remedy="choose another name, or give --force",
    )


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(HEAD)
    except OSError:
        return b""  # what cannot be read is nothing that we know
