"""Mends what Pillow makes of PNG files: large metadata are no fault, transparent colours of any depth are seen."""

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
#: texts and profiles above this many bytes are left out: no pixel depends on them, and Pillow refuses them
LARGE = 2**20
#: what the texts and profiles of one file may be unpacked to; more is a bomb
MAX_METADATA = 2**26
#: how much longer than its packed form anything packed with deflate can be
_MOST_RATIO = 1032
_KINDS = (b"iCCP", b"zTXt", b"iTXt", b"tEXt")
_XMP = b"XML:com.adobe.xmp"
_ORIENTATION = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")


def without_large_metadata(content: bytes, name: object) -> bytes:
    """Return a PNG file without texts and profiles above `LARGE`, but for the orientation that XMP data tell.

    Other files are returned as they are. Raises UnreadableImage where metadata unpack to more than `MAX_METADATA`.
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
    """Bring the transparent colour of an opened PNG to the range of Pillow's pixels; 16-bit grey is left as it is.

    Of 16 bits a channel Pillow keeps the upper 8 in colour images, and so the transparent colour is compared by them.
    """
    clear, depth = image.info.get("transparency"), content[24]
    if image.mode == "L" and depth in (2, 4) and isinstance(clear, int):
        most = 2**depth - 1
        image.info["transparency"] = (clear & most) * 255 // most
    elif image.mode == "RGB" and depth == 16 and isinstance(clear, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _chunks(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield where each whole chunk starts and ends, and its kind."""
    place = len(_MAGIC)
    while place + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        if end > len(content):
            return
        yield place, end, kind
        place = end


def _unpacked(kind: bytes, data: bytes, most: int) -> bytes:
    """Return a chunk's text or profile, of which at most `most` bytes are unpacked."""
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
    except zlib.error:  # Pillow, too, takes a damaged profile or text for none
        return b""


def _orientation(data: bytes, text: bytes) -> bytes:
    """Return a chunk that tells the orientation that large XMP data tell; nothing where there is none."""
    found = _ORIENTATION.search(text) if data.startswith(_XMP + b"\0") else None
    if found is None:
        return b""
    told = b"iTXt" + _XMP + b'\0\0\0\0\0tiff:Orientation="' + found[1] + b'"'
    return struct.pack(">I", len(told) - 4) + told + struct.pack(">I", zlib.crc32(told))
