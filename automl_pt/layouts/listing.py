"""Lists the images to predict: files, folders, patterns, and names read from standard input."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from automl_pt.errors import InvalidDatasetError
from automl_pt.layouts.scan import scan
from automl_pt.text import printable


def list_images(sources: Iterable[str | Path]) -> list[Path]:
    """Return the files meant by `sources`, each once, in the order given; a folder's or pattern's files are sorted.

    A folder gives the images beneath it, without labels. A string that names nothing is tried as a glob pattern (`**`
    for any depth). A `Path` is taken literally and kept even if no file is there: prediction reports it as unreadable.
    Raises InvalidDatasetError for a string that matches nothing and a folder without images.
    """
    found = [path for source in sources for path in _expanded(source)]
    return list(dict.fromkeys(found))


def read_list(stream: BinaryIO, *, nul: bool = False) -> list[Path]:
    """Read file names, one a line (or, with `nul`, separated by NUL bytes: then a name may hold line breaks).

    Names are bytes and need not be UTF-8. Empty lines count for nothing.
    """
    content = stream.read()
    names = content.split(b"\0") if nul else [line.removesuffix(b"\r") for line in content.split(b"\n")]
    return [Path(os.fsdecode(name)) for name in names if name]


def _expanded(source: str | Path) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        return _in_folder(path)
    if isinstance(source, Path) or path.exists():
        return [path]
    matches = sorted(Path(match) for match in glob.glob(source, recursive=True))
    files = [path for path in matches if path.is_file()]
    if not files:
        raise InvalidDatasetError(
            "images to predict must exist",
            given=f"{printable(source)}: no such file or folder, and as a pattern it matches no file",
            remedy="check the path; quote a pattern so that the shell leaves it alone",
        )
    return files


def _in_folder(folder: Path) -> list[Path]:
    found = scan(folder)
    if not found.names:
        raise InvalidDatasetError(
            "a folder given for prediction must hold images",
            given=f"{printable(folder)}: no image, {len(found.left_out)} other files",
            remedy="give a folder with JPEG, PNG, WebP, BMP or GIF files",
        )
    return [folder / name for name in found.names]
