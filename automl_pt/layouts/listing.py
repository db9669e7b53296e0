"""Lists the images to predict, from files, folders, patterns, and names on standard input."""

from __future__ import annotations

import codecs
import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.files import is_there, not_found
from automl_pt.core.text import counted, printable
from automl_pt.layouts.left_out import OUTSIDE, summary
from automl_pt.layouts.scan import scan

_OUTSIDE = "a link out of the folder; name the file or folder that it leads to"
_MATCHED = "a folder that a pattern matches; name the folder to use its images"

_NO_FILE = "not a regular file"


@dataclass(frozen=True)
class Listing:
    """The files to predict, each once, and notes on inputs that were not used."""

    paths: list[Path]
    notes: tuple[str, ...]


def list_images(sources: Iterable[str | Path]) -> Listing:
    """Return the files named by `sources`, each once, in the given order; those of a folder or pattern are sorted.

    A folder stands for the images below it. A string that is no path is tried as a glob pattern (`**` for any depth). A
    `Path` is taken literally and kept even if the file does not exist: prediction then reports it as unreadable.
    Raises InvalidDatasetError for a string that matches nothing and a folder without images.
    """
    left_out: list[tuple[str, str]] = []
    found = [path for source in sources for path in _expanded(source, left_out)]
    paths = list(dict.fromkeys(found))
    again = len(found) - len(paths)
    text = [summary(left_out), f"{counted(again, 'name')} given before: each image is used once" if again else None]
    return Listing(paths, tuple(note for note in text if note is not None))


def read_list(stream: BinaryIO, *, nul: bool = False) -> list[Path]:
    """Read file names, one per line (or, with `nul`, separated by NUL bytes, so that a name may hold line breaks).

    Names are bytes and need not be UTF-8. A byte order mark is dropped, and that of UTF-16 selects UTF-16. Empty lines
    are ignored.
    """
    content = _in_bytes(stream.read())
    names = content.split(b"\0") if nul else [line.removesuffix(b"\r") for line in content.split(b"\n")]
    return [Path(os.fsdecode(name)) for name in names if name]


def _in_bytes(content: bytes) -> bytes:
    """Return a list of names without its byte order mark, in the bytes that the file system uses."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return os.fsencode(content.decode("utf-16"))
        except UnicodeDecodeError as error:
            raise InvalidDatasetError(
                "the list of names has the byte order mark of UTF-16 and is not UTF-16",
                given=f"standard input: {error.reason} at byte {error.start}",
                remedy="write the list as UTF-8",
            ) from error
    return content.removeprefix(codecs.BOM_UTF8)


def _expanded(source: str | Path, left_out: list[tuple[str, str]]) -> list[Path]:
    """Return the files that one source names; add those that are ignored to `left_out`."""
    path = Path(source)
    if os.path.isdir(path):
        return _in_folder(path, left_out)
    if isinstance(source, Path) or is_there(path):
        return [path]
    matches = sorted(Path(match) for match in glob.glob(source, recursive=True))
    files = [path for path in matches if os.path.isfile(path)]
    taken = set(files)
    others = [path for path in matches if path not in taken]
    left_out += [(str(path), _MATCHED if os.path.isdir(path) else _NO_FILE) for path in others]
    if not files:
        raise InvalidDatasetError(
            not_found(source),
            given=f"{printable(source)}: no such file or folder, and as a pattern it matches no file",
            remedy="check the path; quote a pattern so that the shell does not expand it",
        )
    return files


def _in_folder(folder: Path, left_out: list[tuple[str, str]]) -> list[Path]:
    found = scan(folder)
    own = [(name, _OUTSIDE if why == OUTSIDE else why) for name, why in found.left_out]
    left_out += own
    if not found.names:
        text = summary(own)
        raise InvalidDatasetError(
            "the folder holds no images",
            given=f"{printable(folder)}: no image" + (f"; {text}" if text else ""),
            remedy="give a folder with JPEG, PNG, WebP, BMP, GIF or TIFF files",
        )
    return [folder / name for name in found.names]
