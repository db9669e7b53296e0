"""Reads a tar archive, compressed or not, as a limited forward-only stream."""

from __future__ import annotations

import bz2
import gzip
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

#: limit of one read; headers are read at once, and longer ones are decompression bombs
MAX_READ = 4 * 1024 * 1024
_BLOCK = 512


@contextmanager
def open_tar(path: Path, *, limit: int) -> Iterator[tarfile.TarFile]:
    """Open a tar, tar.gz or tar.bz2 archive for reading its members in order.

    Raises tarfile.ReadError for more than `limit` bytes of content, for overlong headers, and, on exit, if the archive
    does not end with its end mark, because `tarfile` treats damage after the first member as the end.
    """
    with _unpacked(path) as stream:
        guard = _Guard(stream, limit)
        # `tarfile` only reads; its annotations require a writable file
        with tarfile.open(fileobj=guard, mode="r:", errors="surrogateescape") as content:  # type: ignore[call-overload]
            yield content
        if guard.tail[-_BLOCK:] != bytes(_BLOCK):
            raise tarfile.ReadError("truncated or damaged: the end mark is missing")
        while guard.read(MAX_READ):
            pass  # read to the end, because gzip's checksum is there


def members(content: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members in order, keeping none of them."""
    while (member := content.next()) is not None:
        content.members = []  # type: ignore[attr-defined]  # where `tarfile` keeps all it has read
        yield member


def _unpacked(path: Path) -> IO[bytes]:
    with open(path, "rb") as stream:
        magic = stream.read(3)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(path, "rb")  # type: ignore[return-value]  # a stream of bytes in all but its base class
    if magic == b"BZh":
        return bz2.open(path, "rb")
    return open(path, "rb")


class _Guard:
    """The file that tarfile reads: forward only except for the last block, with limits."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._limit = stream, limit
        self._position = 0
        self.tail = b""
        #: how many bytes of the tail are read again
        self._again = 0

    def tell(self) -> int:
        return self._position - self._again

    def read(self, size: int) -> bytes:
        if size > MAX_READ:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        again = self.tail[len(self.tail) - self._again :][:size] if self._again else b""
        self._again -= len(again)
        fresh = self._stream.read(size - len(again)) if size > len(again) else b""
        self._position += len(fresh)
        if self._position > self._limit:
            raise tarfile.ReadError(f"the content exceeds {self._limit:,} bytes")
        self.tail = (self.tail + fresh[-2 * _BLOCK :])[-2 * _BLOCK :]
        return again + fresh

    def seek(self, position: int) -> int:
        """Skip forward, or back within the last block."""
        back = self._position - position
        if 0 <= back <= len(self.tail):
            self._again = back
            return position
        if back > 0:
            raise tarfile.ReadError("headers that lead backwards")
        while (ahead := position - self.tell()) > 0:
            if not self.read(min(ahead, MAX_READ)):
                raise tarfile.ReadError("unexpected end of data")
        return position
