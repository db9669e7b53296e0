from __future__ import annotations

import io
import os
import pickle
import random
import struct
import threading
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from automl_pt.check.examine import examine
from automl_pt.images import resize
from automl_pt.images.decode import BACKGROUND, BOUND, MAX_PIXELS, UnreadableImage, decode, decode_rgb, read
from automl_pt.images.read import MAX_BYTES

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


def photo(width: int = 100, height: int = 80, seed: int = 0) -> Image.Image:
    """Draw something smooth with some texture, as photographs are."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((width, height), 3)
    noise = random.integers(-12, 13, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def reference(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The pipeline that documentation promises: full decode, short side bilinear with antialias, centre crop."""
    image = ImageOps.exif_transpose(image).convert("RGB")
    width, height = image.size
    short = min(width, height)
    image = image.resize((size * width // short, size * height // short), Image.Resampling.BILINEAR)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


def difference(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.int16]:
    return np.abs(left.astype(np.int16) - right)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_allowed_format_is_decoded_to_channels_first(kind: str) -> None:
    pixels = decode(encoded(photo(), kind), 32)
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((3, 32, 32), np.uint8, True)
    assert difference(pixels, reference(photo(), 32)).mean() < (1 if kind in ("PNG", "BMP") else 12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70))
def test_any_size_equals_the_reference_within_one_level(width: int, height: int, size: int) -> None:
    image = photo(width, height)
    assert difference(decode(encoded(image), size), reference(image, size)).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (400, 60), (60, 400)])
def test_extreme_shapes_equal_the_reference(shape: tuple[int, int]) -> None:
    image = photo(*shape)
    assert difference(decode(encoded(image), 24), reference(image, 24)).max() <= 2


def test_a_long_image_costs_no_memory_for_what_the_crop_drops() -> None:
    content = encoded(Image.new("RGB", (20_000, 1)))
    tracemalloc.start()
    decode(content, 224)
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("size", [16, 32, 48, 64, 96, 128, 224])
def test_a_photograph_decoded_in_the_dct_stays_within_the_stated_bound(size: int) -> None:
    for seed in range(4):
        content = encoded(photo(512, 384, seed), "JPEG", quality=90)
        apart = difference(decode(content, size), reference(Image.open(io.BytesIO(content)), size))
        assert apart.mean() <= BOUND


def test_a_jpeg_is_never_decoded_below_twice_the_size_asked_for() -> None:
    content = encoded(photo(512, 384), "JPEG")
    shapes = {size: decode_rgb(content, "x", at_least=size).shape[:2] for size in (20, 48, 96, 97, 193)}
    assert shapes == {20: (48, 64), 48: (96, 128), 96: (192, 256), 97: (384, 512), 193: (384, 512)}


def test_a_full_decode_of_a_jpeg_is_that_of_pillow() -> None:
    content = encoded(photo(97, 61), "JPEG", quality=80)
    assert np.array_equal(decode_rgb(content, "x"), np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    turned = encoded(photo(60, 41), kind, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(turned)))
    assert np.array_equal(decode_rgb(turned, "x"), np.asarray(upright))
    assert np.array_equal(decode(turned, 16), decode(np.asarray(upright), 16))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_that_only_xmp_tells_is_applied(orientation: int) -> None:
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    turned = encoded(photo(60, 41), "JPEG", quality=95, xmp=xmp)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(turned)))
    assert (upright.size == (60, 41)) == (orientation < 5)
    assert np.array_equal(decode_rgb(turned, "x"), np.asarray(upright))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0" + b"\xff" * 500, b"x" * 60_000])
def test_damaged_exif_is_ignored_without_a_warning(exif: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encoded(photo(), "JPEG", exif=exif), 16).shape == (3, 16, 16)


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


#: segments that libjpeg passes over and Pillow refuses
REFUSED = {
    "an unknown marker": segment(0x01, b"abc"),
    "a short JFIF": segment(0xE0, b"JFIF\0"),
    "a short Adobe": segment(0xEE, b"Adobe"),
    "a short profile": segment(0xE2, b"ICC_PROFILE\0"),
    "a short Photoshop block": segment(0xED, b"Photoshop 3.0\0008BIM\4\4"),
}


@pytest.mark.parametrize("odd", REFUSED.values(), ids=REFUSED)
def test_training_refuses_the_jpeg_heads_that_the_check_refuses(odd: bytes) -> None:
    content = encoded(photo(), "JPEG")
    body = content[content.index(b"\xff\xdb") :]
    assert decode(b"\xff\xd8" + body, 16).shape == (3, 16, 16)
    with pytest.raises(UnreadableImage, match="its header is damaged"):
        decode(b"\xff\xd8" + odd + body, 16)
    assert examine(b"\xff\xd8" + odd + body, "x").fault == "unreadable"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=20), st.integers(0, 255), st.randoms(use_true_random=False))
def test_training_and_check_agree_on_any_jpeg_head(body: bytes, marker: int, chance: random.Random) -> None:
    content = bytearray(encoded(photo(40, 30), "JPEG"))
    content[2:2] = segment(marker, body)
    content[chance.randrange(2, content.rindex(b"\xff\xda"))] ^= 1 << chance.randrange(8)
    try:
        decode_rgb(bytes(content), "x")
        fault = ""
    except UnreadableImage as error:
        fault = error.kind
    assert examine(bytes(content), "x").fault == fault


def png(header: bytes, body: bytes) -> bytes:
    """Write a PNG file by hand, as Pillow would not."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def sixteen_bit_rgb_png(value: int) -> bytes:
    rows = (b"\0" + struct.pack(">6H", *[value] * 6)) * 2
    return png(struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0), zlib.compress(rows))


@pytest.mark.parametrize(("value", "wanted"), [(0, 0), (257, 1), (40000, 156), (65535, 255)])
def test_sixteen_bits_are_scaled(value: int, wanted: int) -> None:
    grey = Image.fromarray(np.full((4, 4), value, np.uint16))
    assert (decode(encoded(grey), 4) == wanted).all()
    assert (decode(sixteen_bit_rgb_png(value), 2) == wanted).all()


def one_colour(mode: str, colour: object, **info: object) -> bytes:
    image = Image.new(mode, (4, 4), colour)  # type: ignore[arg-type]
    return encoded(image, "JPEG" if mode == "CMYK" else "PNG", **info)


def palette(*, transparent: bool) -> bytes:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    return encoded(image, "PNG", **({"transparency": 1} if transparent else {}))


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        pytest.param(one_colour("1", 1), (255, 255, 255), id="one bit"),
        pytest.param(one_colour("L", 77), (77, 77, 77), id="grey"),
        pytest.param(one_colour("L", 77, transparency=77), BACKGROUND, id="transparent grey"),
        pytest.param(one_colour("RGB", (1, 2, 3)), (1, 2, 3), id="rgb"),
        pytest.param(one_colour("RGB", (1, 2, 3), transparency=(1, 2, 3)), BACKGROUND, id="transparent colour"),
        pytest.param(one_colour("RGBA", (255, 0, 0, 0)), BACKGROUND, id="clear red"),
        pytest.param(one_colour("RGBA", (255, 0, 0, 255)), (255, 0, 0), id="opaque red"),
        pytest.param(one_colour("RGBA", (0, 0, 0, 51)), (204, 204, 204), id="a fifth of black"),
        pytest.param(one_colour("LA", (0, 0)), BACKGROUND, id="clear grey"),
        pytest.param(one_colour("CMYK", (0, 255, 255, 0)), (254, 0, 0), id="print red"),
        pytest.param(palette(transparent=False), (10, 200, 30), id="palette"),
        pytest.param(palette(transparent=True), BACKGROUND, id="transparent palette"),
    ],
)
def test_every_mode_becomes_rgb_by_the_table(content: bytes, wanted: tuple[int, int, int]) -> None:
    assert difference(decode(content, 4)[:, 0, 0], np.array(wanted, np.uint8)).max() <= 1


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert np.array_equal(decode(content, 4)[:, 0, 0], [255, 0, 0])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_an_error_and_never_grey(kind: str, share: float) -> None:
    content = encoded(photo(), kind)
    with pytest.raises(UnreadableImage, match="an image is unreadable"):
        decode(content[: int(share * len(content))], 16)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(FORMATS), st.randoms(use_true_random=False))
def test_flipped_bytes_are_decoded_or_refused(kind: str, chance: random.Random) -> None:
    content = bytearray(encoded(photo(40, 30), kind))
    for _ in range(3):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    try:
        assert decode(bytes(content), 16).shape == (3, 16, 16)
    except UnreadableImage as error:
        assert error.reason  # noqa: PT017  # either outcome is right


@pytest.mark.parametrize(
    ("content", "reason", "kind"),
    [
        (b"", "empty", "empty"),
        (b"<html>not found</html>", "not a JPEG", "unreadable"),
        (b"\0" * 5000, "not a JPEG", "unreadable"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a JPEG", "unreadable"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a JPEG", "unreadable"),
        (encoded(photo(8, 8), "ICO"), "not a JPEG", "unreadable"),
    ],
)
def test_other_content_is_refused_whatever_its_name(tmp_path: Path, content: bytes, reason: str, kind: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decode(path, 16)
    assert (caught.value.kind, caught.value.name) == (kind, str(path))


@pytest.mark.parametrize("side", [15_000, 100_000])
def test_a_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = png(header, zlib.compress(b"\0" * 100))
    tracemalloc.start()
    with pytest.raises(UnreadableImage, match=f"more than the limit of {MAX_PIXELS:,}|more pixels than") as caught:
        decode(content, 16)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert caught.value.kind == "huge"


def test_a_file_beyond_the_byte_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    with open(path, "wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(UnreadableImage, match="more than the limit"):
        read(path)


def test_a_pipe_or_folder_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImage, match="not a regular file"):
        decode(tmp_path / "a.jpg", 16)
    with pytest.raises(UnreadableImage):
        decode(tmp_path, 16)
    with pytest.raises(UnreadableImage, match="No such file"):
        decode(tmp_path / "absent.jpg", 16)


def test_arrays_are_taken_as_they_are() -> None:
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert np.array_equal(decode(grey, 4), np.stack([grey] * 3))
    colour = np.asarray(photo(5, 5))
    assert np.array_equal(decode(colour, 5), colour.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8)],
)
def test_other_arrays_are_refused(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(UnreadableImage, match=r"uint8\[H, W, 3\] or \[H, W\]"):
        decode(pixels, 4)


def test_the_error_tells_what_to_do_escapes_names_and_survives_pickling() -> None:
    error = UnreadableImage("a\x1b[31m\udcff.jpg", "why", "truncated")
    assert str(error) == (
        "an image is unreadable\n"
        "  given: a\\x1b[31m\\udcff.jpg: why\n"
        "  next:  repair or remove the file, or allow a share of such files to be skipped with --max-bad"
    )
    again = pickle.loads(pickle.dumps(error))
    assert (again.name, again.reason, again.kind, str(again)) == (error.name, error.reason, error.kind, str(error))


def test_many_threads_decode_alike_and_leave_warning_filters_alone() -> None:
    contents = [encoded(photo(60, 50, seed), "JPEG") for seed in range(8)] * 8
    alone = [decode(content, 16) for content in contents]
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda content: decode(content, 16), contents))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
    assert warnings.filters == before
    assert threading.active_count() < 20


def test_a_jpeg_that_libjpeg_complains_about_is_left_to_pillow() -> None:
    content = encoded(photo(), "JPEG")
    garbage = content[:2] + b"\0\0\0" + content[2:]
    complaints: list[str] = []
    decode_rgb(content, "x", complaints=complaints)
    assert complaints == []
    try:
        decode_rgb(garbage, "x", complaints=complaints)
    except UnreadableImage:
        return
    assert complaints


def test_the_geometry_is_that_of_resize_and_centre_crop() -> None:
    assert resize.resized(384, 512, 224) == (224, 298)
    assert (resize.offset(298, 224), resize.offset(5, 2)) == (37, 2)
