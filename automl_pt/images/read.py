"""Recognises and reads image files; imports no decoder, so that listing is quick."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from automl_pt.builtin.tiff import TIFF
from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import printable
from automl_pt.plugins.readers import reader_suffixes, use_readers

#: formats that Pillow may try; not TIFF, because its nested and multi-page directories cannot be limited cheaply, and
#: because Pillow lacks most of what laboratories write; `automl_pt.builtin.tiff` reads it
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
#: JPEG, and JPEG followed by a second picture
JPEGS = ("JPEG", "MPO")
#: file endings of images, with the format that each promises
SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
}
use_readers([TIFF])  # so that images are read without a loading of plugins
MAX_PIXELS = 120_000_000
MAX_BYTES = 512 * 1024 * 1024
Fault = Literal["unreadable", "empty", "truncated", "huge"]
#: version of the rule, in caches and model files; to be changed whenever pixels may change
RULE = "rgb-short-side-bilinear-centre-2"
#: largest mean absolute difference of a photograph from the reference pipeline, in levels of 255
BOUND = 1.5


def format_of(ending: str) -> str | None:
    """Return the format that a file's ending promises, in lower case with its dot; None if no image has it."""
    return SUFFIXES.get(ending) or next((name for suffix, name in reader_suffixes() if suffix == ending), None)


class UnreadableImage(InvalidDatasetError):
    """An image that cannot be decoded completely: `name` says which, `reason` why, `kind` the sort of fault."""

    def __init__(self, name: object, reason: str, kind: Fault = "unreadable") -> None:
        self.name, self.reason, self.kind = str(name), reason, kind
        super().__init__(
            "an image is unreadable",
            given=f"{printable(name)}: {reason}",
            remedy="repair or remove the file, or allow a share of such files to be skipped with --max-bad",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, self.reason, self.kind)


def read(path: Path) -> bytes:
    """Return the content of a regular file of at most `MAX_BYTES`; raise UnreadableImage, and never block on a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise UnreadableImage(path, getattr(error, "strerror", None) or str(error)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImage(path, "not a regular file")
        if status.st_size > MAX_BYTES:
            raise UnreadableImage(path, f"{status.st_size:,} bytes, more than the limit of {MAX_BYTES:,}", "huge")
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read()
    except OSError as error:
        raise UnreadableImage(path, error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
