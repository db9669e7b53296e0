"""The `last` checkpoint, from which a run resumes bit for bit. Two are kept; a damaged one is reported and skipped.

`last.json` is the commit record: it names the newest file and the one before it with their SHA-256, and is replaced
after the newest file is durable. Tensors are read with `weights_only=True`, after the checksum is verified.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from automl_pt.core.errors import CheckpointError
from automl_pt.core.files import atomic_file, read_json, remove_stale, sha256_file, write_json
from automl_pt.core.json_reader import read_regular_file

RECORD = "last.json"
#: limit of a checkpoint, more than any machine's memory
MAX_BYTES = 1 << 40


class Checkpoints:
    """The `last` checkpoints in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: dict[str, Any], *, epoch: int, step: int) -> None:
        """Write `state` (tensors and plain values) as the newest checkpoint, durably; keep the previous one.

        Raises OutputError if it cannot be written; the existing checkpoints are then unchanged.
        """
        name = f"last-{epoch:05}-{step:07}.pt"
        with atomic_file(self.folder / name) as stream, _without_crc():
            torch.save(state, stream)
            digest = _sync_and_hash(stream)
        newest = {"file": name, "sha256": digest, "epoch": epoch, "step": step}
        kept = [newest, *(entry for entry in self._record() if entry["file"] != name)][:2]
        write_json(self.folder / RECORD, kept)
        self._remove_all_but({entry["file"] for entry in kept})

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest intact state, or None, and a note for each damaged checkpoint that was skipped."""
        notes: list[str] = []
        remove_stale(self.folder)
        for entry in self._record(notes):
            path = self.folder / entry["file"]
            with _noting(notes, path):
                data = read_regular_file(path, MAX_BYTES)
                if hashlib.sha256(data).hexdigest() != entry["sha256"]:
                    raise ValueError("its checksum does not match")
                del data
                return torch.load(path, map_location="cpu", weights_only=True), notes
        return None, notes

    def remove(self) -> None:
        """Remove all checkpoints, because their run needs no resuming any more."""
        (self.folder / RECORD).unlink(missing_ok=True)
        self._remove_all_but(set())

    def _record(self, notes: list[str] | None = None) -> list[dict[str, Any]]:
        path = self.folder / RECORD
        if not path.exists():
            return []
        with _noting([] if notes is None else notes, path):
            entries = read_json(path)
            if not all(Path(entry["file"]).name == entry["file"] for entry in entries):
                raise ValueError("it names a file outside its folder")
            return list(entries)
        return []

    def _remove_all_but(self, names: set[str]) -> None:
        for path in sorted(self.folder.glob("last-*.pt")):
            if path.name not in names:
                path.unlink(missing_ok=True)


def _sync_and_hash(stream: BinaryIO) -> str:
    """Sync the file and hash it meanwhile, because its bytes are still in the system's memory."""
    stream.flush()
    with ThreadPoolExecutor(1) as pool:
        synced = pool.submit(os.fsync, stream.fileno())
        digest = sha256_file(Path(stream.name))
        synced.result()
    return digest


@contextmanager
def _without_crc() -> Iterator[None]:
    """Disable PyTorch's own checksum, which is never verified on loading; SHA-256 replaces it."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


@contextmanager
def _noting(notes: list[str], path: Path) -> Iterator[None]:
    """Convert an error while reading `path` into a note, because damage raises many types and has one remedy."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        notes.append(f"checkpoint {path} is damaged and was skipped: {error}")


def require_same(found: dict[str, Any], wanted: dict[str, Any], output: Path) -> None:
    """Raise CheckpointError if the run in `output` was started with other settings."""
    differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    if differing:
        changes = ", ".join(f"{key} was {found.get(key)!r} and is {wanted.get(key)!r}" for key in differing)
        raise CheckpointError(
            "this run was started with other settings",
            given=f"{output}: {changes}",
            remedy="give the same settings again, or another --output",
        )
