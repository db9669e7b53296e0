"""Corrects how Pillow reads PNG files: large metadata are no fault, and transparent colours of any depth apply."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from automl_pt.images.read import UnreadableImage

if TYPE_CHECKING:
    from PIL import Image

_MAGIC = b"\x89PNG\r\n\x1a\n"
#: texts and profiles above this many bytes are removed, because Pillow refuses them and no pixel depends on them
LARGE = 2**20
#: limit of the unpacked bytes of one file's texts and profiles, against decompression bombs
MAX_METADATA = 2**26
#: the highest ratio that deflate can compress by
_MOST_RATIO = 1032
_KINDS = (b"iCCP", b"zTXt", b"iTXt", b"tEXt")
_XMP = b"XML:com.adobe.xmp"
_ORIENTATION = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")


def without_large_metadata(content: bytes, name: object) -> bytes:
    """Return a PNG file without texts and profiles above `LARGE`; the orientation in XMP data is kept.

    Other files are returned unchanged. Raises UnreadableImage if metadata unpack to more than `MAX_METADATA`.
    """
    if not content.startswith(_MAGIC):
        return content
    kept, copied, left = list[bytes](), 0, MAX_METADATA
    for start, end, kind in _chunks(content):
        data = content[start + 8 : end - 4] if kind in _KINDS else b""
        if len(data) * _MOST_RATIO <= LARGE:
            continue
        text = _unpacked(kind, data, left)
        left -= len(text)
        if left <= 0:
            raise UnreadableImage(name, f"metadata of more than {MAX_METADATA:,} bytes", "huge")
        if len(text) > LARGE:
            kept += [content[copied:start], _orientation(data, text)]
            copied = end
    return b"".join([*kept, content[copied:]]) if kept else content


def mend_transparency(image: Image.Image, content: bytes) -> None:
    """Scale the transparent colour of an opened PNG to the range of Pillow's pixels; 16-bit grey stays unchanged.

    Pillow keeps the upper 8 of 16 bits a channel in colour images, so the transparent colour is compared by these.
    """
    clear, depth = image.info.get("transparency"), content[24]
    if image.mode == "L" and depth in (2, 4) and isinstance(clear, int):
        most = 2**depth - 1
        image.info["transparency"] = (clear & most) * 255 // most
    elif image.mode == "RGB" and depth == 16 and isinstance(clear, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _chunks(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the start, end and kind of each complete chunk."""
    place = len(_MAGIC)
    while place + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        if end > len(content):
            return
        yield place, end, kind
        place = end


def _unpacked(kind: bytes, data: bytes, most: int) -> bytes:
    """Return a chunk's text or profile, unpacked to at most `most` bytes."""
    head, _, rest = data.partition(b"\0")
    if kind == b"tEXt":
        return rest
    if kind == b"iTXt":
        packed = rest[:1] != b"\0"
        text = b"\0".join(rest[2:].split(b"\0", 2)[2:])
        return _inflated(text, most) if packed else text
    return _inflated(rest[1:], most)


def _inflated(packed: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, most)
    except zlib.error:  # Pillow also ignores a damaged profile or text
        return b""


def _orientation(data: bytes, text: bytes) -> bytes:
    """Return a chunk with the orientation from large XMP data; empty if they have none."""
    found = _ORIENTATION.search(text) if data.startswith(_XMP + b"\0") else None
    if found is None:
        return b""
    chunk = b"iTXt" + _XMP + b'\0\0\0\0\0tiff:Orientation="' + found[1] + b'"'
    return struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
