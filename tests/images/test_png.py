"""PNG files beyond the plain: large metadata, and a transparent colour at every depth."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_pt.check.examine import examine
from automl_pt.images.decode import BACKGROUND, UnreadableImage, decode, decode_rgb
from automl_pt.images.png import LARGE, MAX_METADATA, without_large_metadata

RED = (b"\0" + b"\xff\0\0" * 4) * 4
XMP = b"XML:com.adobe.xmp"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth: int, colour: int, rows: bytes, *before: bytes, after: bytes = b"", side: int = 4) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0))
    body = b"".join(before) + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def packed(size: int, byte: bytes = b"A") -> bytes:
    squeeze = zlib.compressobj(9)
    return b"".join(squeeze.compress(byte * 2**20) for _ in range(size // 2**20)) + squeeze.flush()


def metadata(kind: bytes, size: int) -> bytes:
    """Return a chunk of text or profile that unpacks to `size` bytes."""
    heads = {b"iCCP": b"p\0\0", b"zTXt": b"Comment\0\0", b"iTXt": XMP + b"\0\1\0\0\0"}
    return chunk(kind, heads[kind] + packed(size)) if kind in heads else chunk(kind, b"Comment\0" + b"A" * size)


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt", b"tEXt"])
@pytest.mark.parametrize("size", [0, LARGE, 2 * LARGE, 8 * LARGE])
@pytest.mark.parametrize("behind", [False, True])
def test_metadata_of_any_size_take_nothing_from_the_picture(kind: bytes, size: int, behind: bool) -> None:
    more = metadata(kind, size)
    content = png(8, 2, RED, after=more) if behind else png(8, 2, RED, more)
    assert (decode(content, 4)[:, 0, 0] == (255, 0, 0)).all()
    assert examine(content, "x").fault == ""
    assert (without_large_metadata(content, "x") == content) == (size <= LARGE)


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt"])
@pytest.mark.parametrize("parts", [1, 3])
def test_metadata_that_are_a_bomb_are_refused(kind: bytes, parts: int) -> None:
    each = metadata(kind, MAX_METADATA // parts + 2**20)
    with pytest.raises(UnreadableImage, match="metadata of more than 67,108,864 bytes") as caught:
        decode(png(8, 2, RED, *[each] * parts), 4)
    assert caught.value.kind == "huge"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("value", [1, 3, 6, 8])
def test_an_orientation_in_large_metadata_is_kept(value: int, compressed: bool) -> None:
    rows = (b"\0" + b"\xff\0\0" + b"\0\xff\0" * 3) + (b"\0" + b"\0\0\xff" * 4) * 3
    text = b'<x tiff:Orientation="%d"/>' % value
    small = chunk(b"iTXt", XMP + b"\0\0\0\0\0" + text)
    long = text + b"B" * (2 * LARGE)
    large = chunk(b"iTXt", XMP + (b"\0\1\0\0\0" + zlib.compress(long) if compressed else b"\0\0\0\0\0" + long))
    assert np.array_equal(decode_rgb(png(8, 2, rows, large), "x"), decode_rgb(png(8, 2, rows, small), "x"))


@given(st.binary(max_size=200), st.sampled_from([b"iCCP", b"zTXt", b"iTXt", b"tEXt"]), st.integers(0, 2**32 - 1))
def test_damaged_metadata_never_end_in_another_error(data: bytes, kind: bytes, length: int) -> None:
    odd = struct.pack(">I", length) + kind + data + b"\0\0\0\0"
    for more in (chunk(kind, data), chunk(kind, b"p\0\0" + packed(2 * LARGE)[:1500] + data), odd):
        content = png(8, 2, RED, more)
        try:
            assert decode(content, 4).shape == (3, 4, 4)
        except UnreadableImage as error:
            assert error.reason  # noqa: PT017  # either outcome is right


#: bit depth, the rows' bytes of one pixel value in the left half and another in the right, and the transparent value
GREYS = [
    (1, b"\0\x30", b"\0\0", 0),
    (2, b"\0\x5f", b"\0\1", 85),
    (4, b"\0\x33\xff", b"\0\3", 51),
    (8, b"\0\3\3\xff\xff", b"\0\3", 3),
    (16, b"\0" + b"\x12\x34" * 2 + b"\x12\x35" * 2, b"\x12\x34", 18),
]


@pytest.mark.parametrize(("depth", "row", "clear", "level"), GREYS)
def test_a_transparent_grey_is_laid_on_white_at_any_depth(depth: int, row: bytes, clear: bytes, level: int) -> None:
    content = png(depth, 0, row * 4, chunk(b"tRNS", clear))
    pixels = decode_rgb(content, "x")
    assert (pixels[:, :2] == BACKGROUND).all()
    plain = decode_rgb(png(depth, 0, row * 4), "x")
    assert (plain[:, :2] == level).all()
    assert np.array_equal(pixels[:, 2:], plain[:, 2:])
    assert examine(content, "x").alpha


@pytest.mark.parametrize(("depth", "one", "other"), [(8, b"\1\2\3", b"\1\2\4"), (16, b"\1\1\2\2\3\3", b"\1\1\2\2\4\3")])
def test_a_transparent_colour_is_laid_on_white_at_any_depth(depth: int, one: bytes, other: bytes) -> None:
    clear = one if depth == 16 else b"\0\1\0\2\0\3"
    pixels = decode_rgb(png(depth, 2, (b"\0" + one * 2 + other * 2) * 4, chunk(b"tRNS", clear)), "x")
    assert (pixels[:, :2] == BACKGROUND).all()
    assert (pixels[:, 2:] == (1, 2, 4)).all()


@pytest.mark.parametrize(("depth", "row"), [(1, b"\0\x30"), (2, b"\0\x05"), (4, b"\0\0\x11"), (8, b"\0\0\0\1\1")])
@pytest.mark.parametrize(("alpha", "wanted"), [(b"\xff\0", (255, 255, 255)), (b"\xff\x80", (132, 227, 142))])
def test_a_palette_with_transparency(depth: int, row: bytes, alpha: bytes, wanted: tuple[int, ...]) -> None:
    palette = chunk(b"PLTE", bytes((0, 0, 0, 10, 200, 30)))
    pixels = decode_rgb(png(depth, 3, row * 4, palette, chunk(b"tRNS", alpha)), "x")
    assert (pixels[:, 2:] == wanted).all()
    assert (pixels[:, :2] == 0).all()
