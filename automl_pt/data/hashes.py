"""Content hashes of files, cached by the result of `stat`, so that an unchanged file is read once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from automl_pt.core.files import atomic_write, read_json, to_json
from automl_pt.data.parallel import in_order
from automl_pt.images.read import UnreadableImage, read

FORMAT = 1
#: a file modified less than this long ago may change again with the same `stat`, so its hash is not cached
SETTLED_NS = 2_000_000_000

Progress = Callable[[str, int, int], None]


class HashIndex:
    """Hashes cached in a JSON file; a damaged or foreign one counts as empty and is rewritten.

    `named` holds hashes of arrays, under names that change with their content. If two processes write the file at once,
    the later one wins, and the other's hashes are computed again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known, self.named = _read(path)
        self.read_files = 0

    def digests(
        self, files: Mapping[str, Path], *, threads: int, progress: Progress | None = None
    ) -> dict[str, str | UnreadableImage]:
        """Return the sha256 of each of `files`, by name, or the error of a file that cannot be read."""
        found: dict[str, str | UnreadableImage] = {}
        unknown: dict[str, Path] = {}
        for name, path in files.items():
            digest = self._remembered(path)
            if digest is None:
                unknown[name] = path
            else:
                found[name] = digest
        results = in_order(_hashed, unknown.values(), threads=threads)
        for done, (name, (path, identity, result)) in enumerate(zip(unknown, results, strict=True), 1):
            found[name] = result
            if isinstance(result, str):
                self._remember(path, identity, result)
            if progress is not None:
                progress("hashing", done, len(unknown))
        self.read_files += len(unknown)
        return {name: found[name] for name in files}

    def save(self) -> None:
        """Write the known hashes; raise OutputError."""
        atomic_write(self.path, to_json({"format": FORMAT, "files": self.known, "named": self.named}))

    def _remembered(self, path: Path) -> str | None:
        entry = self.known.get(str(path))
        if entry is None:
            return None
        try:
            return str(entry[-1]) if entry[:-1] == _identity(os.stat(path)) else None
        except OSError:  # reading the file reports the error
            return None

    def _remember(self, path: Path, identity: list[int], digest: str) -> None:
        if identity and time.time_ns() - max(identity[1:3]) > SETTLED_NS:
            self.known[str(path)] = [*identity, digest]


def array_digest(pixels: Any) -> str:
    """Return the sha256 of an array's shape, type (unless it is uint8) and content."""
    import numpy as np

    kind = "" if pixels.dtype == np.uint8 else str(pixels.dtype)
    digest = hashlib.sha256(f"{pixels.shape!r}{kind}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _hashed(path: Path) -> tuple[Path, list[int], str | UnreadableImage]:
    try:
        # before reading, so that a change during the read is noticed next time
        identity = _identity(os.stat(path))
        return path, identity, hashlib.sha256(read(path)).hexdigest()
    except UnreadableImage as error:
        return path, [], error
    except OSError as error:
        return path, [], UnreadableImage(path, error.strerror or str(error))


def _identity(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(path: Path) -> tuple[dict[str, list[Any]], dict[str, str]]:
    try:
        values = read_json(path)
    except (OSError, ValueError):  # missing or damaged: everything is hashed again
        return {}, {}
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        return {}, {}
    files, named = values.get("files"), values.get("named")
    if not isinstance(files, dict) or not isinstance(named, dict):
        return {}, {}
    known = {name: entry for name, entry in files.items() if isinstance(entry, list) and len(entry) == 5}
    return known, {name: digest for name, digest in named.items() if isinstance(digest, str)}
