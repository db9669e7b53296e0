"""Images as laboratories have them: depth and channels up to the network's input, and files that lie."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from automl_pt.core.errors import InstallationError
from automl_pt.images import read as reading
from automl_pt.images.decode import decode, decode_rgb, own_pixels
from automl_pt.images.deep import MAX_DECODED, MissingReader, header_by, turned
from automl_pt.images.formats import described, picture
from automl_pt.images.pixel_format import RGB8, PixelFormat, converted, shown
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.images.read import UnreadableImage
from automl_pt.images.resize import fit_any
from automl_pt.plugins.readers import ImageHeader, ImageReader
from automl_pt.testing import check_reader

RANDOM = np.random.default_rng(0)
GREY16 = RANDOM.integers(0, 65536, (40, 50), np.uint16)
RGB16 = RANDOM.integers(0, 65536, (40, 50, 3), np.uint16)
GREY8 = (GREY16 >> 8).astype(np.uint8)


def tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    content = io.BytesIO()
    options.setdefault("photometric", "rgb" if pixels.ndim == 3 and pixels.shape[-1] == 3 else "minisblack")
    tifffile.imwrite(content, pixels, **options)
    return content.getvalue()


def png16(pixels: NDArray[np.uint16]) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.png_encode(pixels))


MANY = {"planarconfig": "contig", "extrasamples": ["unspecified"] * 4}
FIVE = RANDOM.integers(0, 4096, (40, 50, 5), np.uint16)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiff(GREY16), GREY16),
        (tiff(GREY16, compression="lzw", predictor=True), GREY16),
        (tiff(GREY16, compression="deflate", predictor=True, tile=(16, 16)), GREY16),
        (tiff(GREY16, byteorder=">", bigtiff=True), GREY16),
        (tiff(GREY16, photometric="miniswhite"), 65535 - GREY16),
        (tiff(GREY8, compression="lzw"), GREY8),
        (tiff(RGB16, compression="zstd"), RGB16),
        (tiff(np.moveaxis(RGB16, 2, 0), planarconfig="separate", photometric="rgb"), RGB16),
        (tiff(np.stack([GREY16, GREY16 + 1]), photometric="minisblack"), GREY16),
        (tiff(FIVE, **MANY), FIVE),
        (tiff(GREY16.astype(np.float32) / 7), GREY16.astype(np.float32) / 7),
        (tiff(GREY8 > 99), np.where(GREY8 > 99, 255, 0).astype(np.uint8)),
        (tiff(GREY16.astype(np.int16)), GREY16.astype(np.int16).astype(np.float32)),
        (png16(GREY16), GREY16),
        (png16(RGB16), RGB16),
    ],
)
def test_a_file_keeps_its_depth_and_channels(content: bytes, expected: NDArray[Any]) -> None:
    found = own_pixels(content, "x")
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected.reshape(found.shape))
    told = described(content, "x")
    assert (told.width, told.height) == (50, 40)
    assert told.pixels in (RGB8, PixelFormat(found.shape[2], str(found.dtype)))


def test_transparency_is_laid_on_white_at_full_depth() -> None:
    alpha = np.full((40, 50, 1), 65535, np.uint16)
    alpha[:20] = 0
    expected = np.where(alpha == 0, 65535, RGB16)
    for content in (
        png16(np.concatenate([RGB16, alpha], 2)),
        tiff(np.concatenate([RGB16, alpha], 2), photometric="rgb", extrasamples=["unassalpha"]),
    ):
        np.testing.assert_array_equal(own_pixels(content, "x"), expected)


def test_an_eight_bit_tiff_is_a_photograph_like_the_same_png() -> None:
    colours = (RGB16 >> 8).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(colours).save(content, "PNG")
    for one, other in ((tiff(colours), content.getvalue()), (tiff(GREY8), np.repeat(GREY8[..., None], 3, 2))):
        assert described(one, "x").pixels.is_rgb8
        np.testing.assert_array_equal(decode(one, 24), decode(other, 24))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_tag_of_orientation_applies_as_pillow_does_it(orientation: int) -> None:
    content = io.BytesIO()
    Image.fromarray(GREY16).save(content, "PNG", exif=_exif(orientation))
    from PIL import ImageOps

    upright = np.asarray(ImageOps.exif_transpose(Image.open(content)))
    np.testing.assert_array_equal(own_pixels(content.getvalue(), "x")[..., 0], upright)
    tagged = tiff(GREY16, extratags=[(274, "H", 1, orientation, True)])
    np.testing.assert_array_equal(own_pixels(tagged, "x")[..., 0], upright)
    np.testing.assert_array_equal(turned(GREY16[..., None], orientation)[..., 0], upright)


def _exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[274] = orientation
    return found


def with_tag(content: bytes, tag: int, value: int) -> bytes:
    """Return a little-endian TIFF whose first directory claims another value, as a LONG."""
    changed = bytearray(content)
    (place,) = struct.unpack_from("<I", changed, 4)
    (count,) = struct.unpack_from("<H", changed, place)
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        if struct.unpack_from("<H", changed, entry)[0] == tag:
            struct.pack_into("<HHII", changed, entry, tag, 4, 1, value)
    return bytes(changed)


PLAIN = tiff(GREY16, rowsperstrip=8)
NOT_FINITE = np.where(GREY8 > 250, np.nan, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("content", "reason", "kind"),
    [
        (PLAIN[:2000], "TIFF: the file is truncated: failed to read", "truncated"),
        (PLAIN[:40], "TIFF: ", "unreadable"),
        (PLAIN[:4], "TIFF: ", "unreadable"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "TIFF: ", "unreadable"),
        (b"II*\0\0\0\0\0", "TIFF: a TIFF file without pages", "unreadable"),
        (with_tag(PLAIN, 256, 2**31), "2147483648 x 40 pixels of 1 channel, 16 bits, more than the limit", "huge"),
        (with_tag(with_tag(PLAIN, 256, 90_000), 257, 90_000), "90000 x 90000 pixels", "huge"),
        (with_tag(PLAIN, 256, 0), "TIFF: 0 x 40 pixels", "unreadable"),
        (with_tag(PLAIN, 273, 2**30), "TIFF: ", "truncated"),
        (with_tag(tiff(GREY16, tile=(16, 16)), 322, 2**20 * 16), "tiles of 16777216 x 16 pixels", "unreadable"),
        (with_tag(PLAIN, 262, 8), "TIFF: colours of the kind CIELAB; convert them to RGB", "unreadable"),
        (tiff(NOT_FINITE), r"\d+ of 2,000 numbers are NaN or infinite; replace them", "unreadable"),
        (tiff(GREY16.astype(np.complex64)), "complex numbers", "unreadable"),
        (png16(RGB16)[:-400], "the file is truncated: ", "truncated"),
        (png16(GREY16)[:-400], "truncated", "truncated"),
    ],
)
def test_a_file_that_lies_is_named_with_its_fault(tmp_path: Path, content: bytes, reason: str, kind: str) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decode(path, 8, pixels=described(content, path).pixels)
    assert (caught.value.kind, "scan.tif" in caught.value.given) == (kind, True)


def test_a_strip_that_unpacks_to_more_than_its_place_takes_no_memory() -> None:
    import zlib

    bomb = zlib.compress(bytes(1 << 26), 9)
    content = bytearray(tiff(GREY8, compression="deflate"))
    start = len(content)
    content = bytearray(with_tag(with_tag(bytes(content), 273, start), 279, len(bomb))) + bomb
    with pytest.raises(UnreadableImage, match="TIFF: "):
        decode(bytes(content), 8)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_damage_is_an_error_or_an_image(data: st.DataObject) -> None:
    content = bytearray(tiff(GREY16, compression="lzw", rowsperstrip=16))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UnreadableImage):
        found = described(bytes(content), "x")
        assert decode(bytes(content), 8, pixels=found.pixels).shape == (found.pixels.channels, 8, 8)


@pytest.mark.parametrize(
    ("given", "wanted", "expected"),
    [
        (np.full((1, 1, 1), 40000, np.uint16), RGB8, [156] * 3),
        (np.full((1, 1, 1), 200, np.uint8), PixelFormat(1, "uint16"), [51400]),
        (np.array([[[10, 20, 30]]], np.uint8), PixelFormat(1), [18]),
        (np.array([[[7, 8]]], np.uint16), PixelFormat(2, "float32"), [7.0, 8.0]),
    ],
)
def test_a_format_becomes_another_by_scale_and_brightness(given: Any, wanted: PixelFormat, expected: Any) -> None:
    found = converted(given, wanted, "x")
    assert found.dtype == wanted.dtype
    assert found[0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("given", "wanted", "reason"),
    [
        (FIVE, RGB8, "the image has 5 channels, 16 bits; RGB, 8 bits are expected"),
        (np.ones((2, 2, 1), np.float32), RGB8, "float numbers, whose range is unknown"),
        (RGB16, PixelFormat(2, "uint16"), "the image has 3 channels, 16 bits; 2 channels, 16 bits are expected"),
    ],
)
def test_channels_are_neither_lost_nor_invented(given: Any, wanted: PixelFormat, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        converted(given, wanted, "x")


def test_resizing_any_pixels_equals_that_of_photographs_within_a_level() -> None:
    smooth = np.asarray(Image.fromarray(RANDOM.integers(0, 256, (8, 8, 3), np.uint8)).resize((90, 70), 3))
    for size in (32, 70, 100):
        exact = decode(smooth, size)
        assert np.abs(fit_any(smooth, size).astype(int) - exact).max() <= 1
    deep = fit_any(smooth.astype(np.uint16) * 257, 32)
    assert np.abs(deep / 257 - decode(smooth, 32)).max() <= 1.5


def test_a_picture_shows_the_range_that_is_there() -> None:
    dark = (GREY16 >> 8).astype(np.uint16) + 1000  # 256 of 65,536 values, which would all look black
    seen = picture(tiff(dark))
    assert (seen.shape, seen.min(), seen.max()) == ((40, 50, 3), 0, 255)
    assert decode_rgb(tiff(dark), "x").max() <= 5
    assert shown(FIVE).shape == (40, 50, 3)
    np.testing.assert_array_equal(shown(GREY8[..., None])[..., 0], GREY8)


def test_the_format_is_in_a_models_preprocessing_and_photographs_have_none() -> None:
    deep = Preprocessing(8, (12.5,), (3.0,), pixels=PixelFormat(1, "uint16"))
    assert Preprocessing.from_dict(deep.to_dict()) == deep
    assert set(Preprocessing(8, (0.5,) * 3, (0.2,) * 3).to_dict()) == {"image_size", "mean", "std", "rule"}


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(
        MissingReader, match=r"TIFF images need a library .*; pip install tifffile imagecodecs"
    ) as caught:
        decode(PLAIN, 8)
    assert isinstance(caught.value.installation(), InstallationError)


def test_the_contract_holds_for_tiff_and_refuses_readers_that_break_it() -> None:
    check_reader("TIFF", tiff(GREY16, rowsperstrip=4, metadata=None))
    with pytest.raises(UnreadableImage, match="more than the limit"):
        header_by(
            ImageReader("x", (".x",), bool, lambda content: ImageHeader(MAX_DECODED, 2), lambda content: GREY8),
            b"x",
            "x",
        )
    assert reading.format_of(".tiff") == "TIFF"
