"""The file of a network's features: float32[N, D], one row per image content; it grows block by block.

head      magic (16 bytes), length of meta (4), meta as JSON: format, backbone, image size, dimensions
block     number of rows (4 bytes), dimensions (4), number format of the network (4), sha256 of the rest (32), then
          N times 64 hexadecimal digits, the sha256 of the image's file, and float32[N, D]

A block that a kill or a power cut left incomplete does not match its checksum: the file is truncated before it, and
the rows are computed again.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from automl_pt.core.files import to_json
from automl_pt.core.json_reader import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
SUFFIX = ".features"
MAGIC = b"automl-pt feats\n"
_LENGTH = struct.Struct("<I")
_BLOCK = struct.Struct("<II4s32s")
_DIGEST = 64
#: limit of the header's size
_MAX_META = 1 << 16


class DamagedFeatures(Exception):
    """The file is not a file of features of ours, and is created again."""


@dataclass(frozen=True)
class Features:
    """Rows float32[N, D] in memory, and the content of each."""

    rows: NDArray[np.float32]
    places: dict[str, int]
    #: the number format in which the network computed the last of them; empty if there are none
    precision: str = ""

    def holds(self, digests: Sequence[str]) -> bool:
        """Return whether all of `digests` are present."""
        return all(digest in self.places for digest in digests)

    def with_blocks(self, blocks: Sequence[tuple[Sequence[str], NDArray[np.float32]]], precision: str) -> Features:
        """Return these features with more rows, each of a different content."""
        names = [*sorted(self.places, key=self.places.__getitem__), *(name for some, _ in blocks for name in some)]
        parts = [*([self.rows] if self.places else []), *(rows for _, rows in blocks)]
        if not blocks:
            return self
        return Features(np.concatenate(parts), {name: place for place, name in enumerate(names)}, precision)

    def of(self, digests: Sequence[str]) -> NDArray[np.float32]:
        """Return the rows of `digests`, all of which must be present."""
        chosen: NDArray[np.float32] = self.rows[[self.places[digest] for digest in digests]]
        return chosen


def read_meta(path: Path) -> dict[str, Any]:
    """Return the metadata in a file's header.

    Raises OSError if there is no file, DamagedFeatures if it is not one of ours.
    """
    with open(path, "rb") as stream:
        return _meta(stream)


def count_rows(path: Path) -> int:
    """Count the rows of a file by the headers of its blocks, without verifying checksums."""
    with open(path, "rb") as stream:
        _meta(stream)
        size, total = os.fstat(stream.fileno()).st_size, 0
        while len(head := stream.read(_BLOCK.size)) == _BLOCK.size:
            count, dimensions, _, _ = _BLOCK.unpack(head)
            if stream.seek(_payload(count, dimensions), os.SEEK_CUR) > size:
                break
            total += count
        return total


def read_features(path: Path, digests: Sequence[str]) -> tuple[Features, int]:
    """Return those of `digests` that a file holds, and the length of its intact part in bytes.

    Raises OSError if there is no file, DamagedFeatures if it is not one of ours.
    """
    wanted = set(digests)
    parts: list[NDArray[np.float32]] = []
    places: dict[str, int] = {}
    precision = ""
    with open(path, "rb") as stream:
        _meta(stream)
        end = stream.tell()
        for names, rows, number_format in _blocks(stream):
            end, precision = stream.tell(), number_format
            chosen = [row for row, name in enumerate(names) if name in wanted and name not in places]
            first = len(places)
            places.update((names[row], first + offset) for offset, row in enumerate(chosen))
            parts.append(rows[chosen])
    found = np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
    return Features(found, places, precision), end


def begin(path: Path, meta: dict[str, Any]) -> None:
    """Write the header of a new file."""
    content = to_json({"format": FORMAT, **meta}).encode()
    with open(path, "wb") as stream:
        stream.write(MAGIC + _LENGTH.pack(len(content)) + content)


def append(stream: BinaryIO, digests: Sequence[str], rows: NDArray[np.float32], precision: str) -> None:
    """Append a block of rows float32[B, D] and flush it to the operating system, so that a killed process keeps it."""
    payload = "".join(digests).encode() + np.ascontiguousarray(rows, np.float32).tobytes()
    stream.write(
        _BLOCK.pack(len(digests), rows.shape[1], precision.encode(), hashlib.sha256(payload).digest()) + payload
    )
    stream.flush()


def file_size(count: int, dimensions: int) -> int:
    """Return the approximate size in bytes of the features of `count` images."""
    return _payload(count, dimensions) + 4096


def _payload(count: int, dimensions: int) -> int:
    return count * (_DIGEST + 4 * dimensions)


def _meta(stream: BinaryIO) -> dict[str, Any]:
    start = stream.read(len(MAGIC) + _LENGTH.size)
    if len(start) < len(MAGIC) + _LENGTH.size or not start.startswith(MAGIC):
        raise DamagedFeatures("truncated, or not features of automl-pt")
    (length,) = _LENGTH.unpack(start[len(MAGIC) :])
    content = stream.read(min(length, _MAX_META))
    try:
        meta = parse_json(content)
    except ValueError as error:
        raise DamagedFeatures(f"its header is not JSON: {error}") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise DamagedFeatures("made by another version")
    return meta


def _blocks(stream: BinaryIO) -> Iterator[tuple[list[str], NDArray[np.float32], str]]:
    size = os.fstat(stream.fileno()).st_size
    while len(head := stream.read(_BLOCK.size)) == _BLOCK.size:
        count, dimensions, precision, checksum = _BLOCK.unpack(head)
        if stream.tell() + _payload(count, dimensions) > size:
            return
        payload = stream.read(_payload(count, dimensions))
        if hashlib.sha256(payload).digest() != checksum:
            return
        text = payload[: count * _DIGEST].decode("ascii")
        names = [text[start : start + _DIGEST] for start in range(0, len(text), _DIGEST)]
        rows = np.frombuffer(payload, np.float32, offset=count * _DIGEST).reshape(count, dimensions)
        yield names, rows, precision.decode("ascii", "replace")
