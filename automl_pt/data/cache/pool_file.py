"""The file of a cache: N images of one size, by content. Written once, sequentially; read through a memory map.

rows      [N, C, S, S], from byte 0; uint8 and three channels unless meta states another format
digests   N times 64 hexadecimal digits: the sha256 of the row's file
meta      JSON: format, rule, image size, count, sha256 of rows and digests, unreadable files with reasons
tail      length of meta (8 bytes), sha256 of meta (32), magic (16)
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from automl_pt.core.files import to_json
from automl_pt.core.json_reader import JsonError, parse_json
from automl_pt.images.pixel_format import RGB8, PixelFormat
from automl_pt.images.read import RULE

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
MAGIC = b"automl-pt pixels"
_TAIL = struct.Struct("<Q32s16s")
_DIGEST = 64
#: limit of the size of the metadata, with its table of unreadable files
_MAX_META = 1 << 30
#: bytes hashed and written at once, because each call waits for Python's lock, which decoding threads hold too
_PIECE = 1 << 18


class DamagedPool(Exception):
    """The file is not an intact cache of ours, and is built again."""


@dataclass(frozen=True)
class Pool:
    """Images [N, C, S, S] and the content of each row; `unreadable` maps a sha256 to a reason."""

    images: NDArray[Any]
    digests: NDArray[np.bytes_]
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def rows(self, digests: list[str]) -> NDArray[np.int64]:
        """Return int64: the row of each of `digests`, -1 for one that is missing."""
        wanted = np.array(digests, dtype=f"S{_DIGEST}")
        if not len(self.digests):
            return np.full(len(wanted), -1, np.int64)
        order = np.argsort(self.digests, kind="stable")
        places = np.searchsorted(self.digests, wanted, sorter=order)
        rows = order[np.minimum(places, len(order) - 1)]
        return np.where(self.digests[rows] == wanted, rows, -1).astype(np.int64)


class PoolWriter:
    """Appends images to an open file, buffering at most `_PIECE` bytes."""

    def __init__(self, stream: BinaryIO, image_size: int, pixels: PixelFormat = RGB8) -> None:
        self.stream, self.image_size, self.pixels = stream, image_size, pixels
        # one byte string, because a hundred thousand objects would take twice the memory
        self.digests = bytearray()
        self.unreadable: dict[str, str] = {}
        self.checksum = hashlib.sha256()
        self._pending: list[memoryview] = []

    def add(self, digest: str, image: NDArray[Any]) -> None:
        """Append [C, S, S]."""
        self._pending.append(np.ascontiguousarray(image).data.cast("B"))
        self.digests += digest.encode()
        if len(self._pending) * image.nbytes >= _PIECE:
            self._flush()

    def finish(self) -> None:
        """Append digests, meta and tail."""
        self._flush()
        self._write(memoryview(self.digests))
        meta = to_json(
            {
                "format": FORMAT,
                "rule": RULE,
                **self.pixels.to_dict(),
                "image_size": self.image_size,
                "count": len(self.digests) // _DIGEST,
                "sha256": self.checksum.hexdigest(),
                "unreadable": self.unreadable,
            }
        ).encode()
        self.stream.write(meta + _TAIL.pack(len(meta), hashlib.sha256(meta).digest(), MAGIC))

    def _flush(self) -> None:
        self._write(b"".join(self._pending))
        self._pending.clear()

    def _write(self, content: bytes | memoryview) -> None:
        self.checksum.update(content)
        self.stream.write(content)


def open_pool(
    path: Path, *, image_size: int | None = None, pixels: PixelFormat | None = None, verify: bool = False
) -> Pool:
    """Map a cache file; with `verify` every byte is read and compared with the checksum.

    Raises OSError if it does not exist, DamagedPool if it is truncated, foreign, of another rule, size or format.
    """
    with open(path, "rb") as stream:
        meta, start = _meta(stream)
        size, count, found = meta["image_size"], meta["count"], _pixels(meta)
        fits = image_size in (None, size) and pixels in (None, found)
        if meta["format"] != FORMAT or meta["rule"] != RULE or not fits:
            raise DamagedPool(f"made by another version or rule, or for another size: {meta!r}"[:200])
        length = count * found.size * size * size
        if start != length + count * _DIGEST:
            raise DamagedPool(f"{start} bytes before its metadata, not {length + count * _DIGEST}")
        if verify:
            _require_content(stream, start, meta["sha256"])
        stream.seek(length)
        digests = np.frombuffer(stream.read(count * _DIGEST), dtype=f"S{_DIGEST}")
    shape, dtype = (count, found.channels, size, size), np.dtype(found.dtype)
    # an array and not a memmap, because slicing the subclass is slower
    images = np.asarray(np.memmap(path, dtype, "r", shape=shape)) if count else np.zeros(shape, dtype)
    return Pool(images, digests, meta["unreadable"])


def file_size(count: int, image_size: int, pixels: PixelFormat = RGB8) -> int:
    """Return the approximate size in bytes of a cache of `count` images."""
    return count * (pixels.size * image_size * image_size + _DIGEST) + 4096


def _pixels(meta: dict[str, Any]) -> PixelFormat:
    try:
        return PixelFormat.from_dict(meta)
    except ValueError as error:
        raise DamagedPool(str(error)) from error


def _meta(stream: BinaryIO) -> tuple[dict[str, Any], int]:
    end = stream.seek(0, 2)
    if end < _TAIL.size:
        raise DamagedPool(f"only {end} bytes")
    stream.seek(end - _TAIL.size)
    length, digest, magic = _TAIL.unpack(stream.read(_TAIL.size))
    if magic != MAGIC or length > min(end - _TAIL.size, _MAX_META):
        raise DamagedPool("truncated, or not a cache of automl-pt")
    stream.seek(end - _TAIL.size - length)
    content = stream.read(length)
    if hashlib.sha256(content).digest() != digest:
        raise DamagedPool("its metadata do not match their checksum")
    try:
        return parse_json(content), end - _TAIL.size - length
    except JsonError as error:
        raise DamagedPool(f"its metadata: {error}") from error


def _require_content(stream: BinaryIO, length: int, wanted: str) -> None:
    checksum = hashlib.sha256()
    stream.seek(0)
    while length:
        block = stream.read(min(length, 1 << 20))
        length -= len(block)
        checksum.update(block)
    if checksum.hexdigest() != wanted:
        raise DamagedPool("its content does not match its checksum")
