"""The only place where image files are opened: allow-listed formats, size limits, and every pixel decoded or an error.

Training, validation, prediction and exports share one rule: apply the EXIF orientation; convert any mode to RGB as
`modes` describes; resize the short side to S with antialiasing (bilinear); crop the centre. JPEG files much larger
than S are decoded at 1/2, 1/4 or 1/8 in the DCT, never below twice S, so the result stays within `BOUND` of a full one.
"""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from automl_pt.core.text import printable
from automl_pt.images.deep import as_channels, checked, deep_png, is_deep_png, read_by, reader_for, turned
from automl_pt.images.foreign import kind_of
from automl_pt.images.pixel_format import RGB8, PixelFormat, converted
from automl_pt.images.png import mend_transparency, without_large_metadata
from automl_pt.images.read import BOUND as BOUND
from automl_pt.images.read import FORMATS, JPEGS, MAX_PIXELS
from automl_pt.images.read import RULE as RULE
from automl_pt.images.read import UnreadableImage as UnreadableImage
from automl_pt.images.read import read as read
from automl_pt.images.resize import fit, fit_any

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: imported here because Pillow registers a format only when its module is imported
_PLUGINS = (BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin)
_ORIENTATION = 0x0112
#: JPEG header segments that Pillow need not check, with their least length in bytes: frames, tables, restarts,
#: comments, JFIF, Adobe's colours; files with any other segment, such as EXIF, XMP or profiles, go through Pillow
_PLAIN_SEGMENTS = {**dict.fromkeys((0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xFE), 2), 0xE0: 16, 0xEE: 14}
_SCAN = 0xDA
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: only one thread at a time may change Python's warning filters, because they belong to the whole process
_quiet = threading.Lock()


def decode(
    source: Path | bytes | NDArray[Any],
    image_size: int,
    *,
    name: object = None,
    out: NDArray[Any] | None = None,
    pixels: PixelFormat = RGB8,
) -> NDArray[Any]:
    """Return the image as [C, S, S] in the format `pixels`, S being `image_size` in pixels; raise UnreadableImage.

    By default that is uint8[3, S, S]. `source` is a path, a file's content, or an array [H, W, C] or [H, W]; errors
    refer to it as `name`. With `out`, [C, S, S], the image is written there.
    """
    if not pixels.is_rgb8:
        return fit_any(whole(source, pixels, name=name), image_size, out=out)
    return _photograph(source, image_size, name=name, out=out)


def _photograph(
    source: Path | bytes | NDArray[Any], image_size: int, *, name: object, out: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    if isinstance(source, np.ndarray):
        pixels = as_rgb(source, "an array" if name is None else name)
    elif isinstance(source, bytes):
        pixels = decode_rgb(source, "an image" if name is None else name, at_least=image_size)
    else:
        pixels = decode_rgb(read(source), source if name is None else name, at_least=image_size)
    return fit(pixels, image_size, out=out)


def whole(source: Path | bytes | NDArray[Any], pixels: PixelFormat, *, name: object = None) -> NDArray[Any]:
    """Return an image at its own size, upright, as [H, W, C] in the format `pixels`; raise UnreadableImage."""
    if isinstance(source, np.ndarray):
        name = "an array" if name is None else name
        return converted(as_channels(checked(source, name)), pixels, name)
    name = ("an image" if isinstance(source, bytes) else source) if name is None else name
    content = source if isinstance(source, bytes) else read(source)
    return converted(own_pixels(content, name), pixels, name)


def own_pixels(content: bytes, name: object) -> NDArray[Any]:
    """Return a file's image upright, [H, W, C] at its own depth; 8 bits of the formats of photographs are RGB."""
    if (reader := reader_for(content)) is not None:
        return read_by(reader, content, name)
    if not is_deep_png(content):
        return decode_rgb(content, name)
    image = open_header(content, name)
    return turned(deep_png(image, content, name), orientation(image))


def open_header(content: bytes, name: object) -> Image.Image:
    """Open an image without decoding it; raise UnreadableImage for other formats and above `MAX_PIXELS`."""
    if not content:
        raise UnreadableImage(name, "the file is empty (0 bytes)", "empty")
    content = without_large_metadata(content, name)
    try:
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise UnreadableImage(name, f"more pixels than the limit of {MAX_PIXELS:,}", "huge") from error
    except Exception as error:  # Pillow's plugins raise many types on damaged headers
        raise _undecodable(content, name, error) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableImage(name, f"{width} x {height} pixels, more than the limit of {MAX_PIXELS:,}", "huge")
    if not width or not height:
        raise UnreadableImage(name, f"{width} x {height} pixels")
    if image.format == "PNG":
        mend_transparency(image, content)
    return image


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) for damaged or missing EXIF data."""
    try:
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the pixels do not depend on EXIF data
        return 1
    return value if value in _UPRIGHT else 1


def decode_rgb(
    content: bytes, name: object, *, at_least: int | None = None, complaints: list[str] | None = None
) -> NDArray[np.uint8]:
    """Decode a file's content, upright, to uint8[H, W, 3]; raise UnreadableImage.

    With `at_least` a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, with a short side of at least twice that.
    Faults that the JPEG decoder reports in a file that still decodes to its last pixel are added to `complaints`.
    """
    plain = _plain_jpeg(content, at_least)
    if plain is not None:
        return plain
    if (reader := reader_for(content)) is not None:
        return converted(read_by(reader, content, name), RGB8, name)
    image = open_header(content, name)
    turn = _UPRIGHT.get(orientation(image))
    if image.format in JPEGS and image.mode in ("RGB", "L"):
        try:
            pixels = _decode_jpeg(content, image.size, at_least)
            return pixels if turn is None else np.array(Image.fromarray(pixels).transpose(turn))
        except ValueError as error:  # libjpeg reports a fault; Pillow, below, decides whether every pixel is present
            if complaints is not None:
                complaints.append(printable(error))
    try:
        image.load()
        image = to_rgb(image)
    except Exception as error:  # Pillow's decoders raise many types on damaged data
        raise _undecodable(content, name, error) from error
    return np.array(image if turn is None else image.transpose(turn))


def _plain_jpeg(content: bytes, at_least: int | None) -> NDArray[np.uint8] | None:
    """Decode a JPEG of one or three colours with a plain header; return None for any other or damaged file.

    Pillow would hold Python's lock for 0.03 ms per header, which slows threads; all other files go through Pillow.
    """
    if not _has_plain_head(content):
        return None
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours not in ("YCbCr", "RGB", "Gray") or width * height > MAX_PIXELS:
            return None
        return _decode_jpeg(content, (width, height), at_least)
    except ValueError:
        return None


def _has_plain_head(content: bytes) -> bool:
    """Return whether all header segments of a JPEG up to its first scan are ones that Pillow need not check."""
    if not content.startswith(b"\xff\xd8\xff"):
        return False
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != _SCAN:
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        if length < _PLAIN_SEGMENTS.get(content[place + 1], length + 1):
            return False
        place += 2 + length
    return content[place : place + 2] == bytes((0xFF, _SCAN))


def _decode_jpeg(content: bytes, size: tuple[int, int], at_least: int | None) -> NDArray[np.uint8]:
    """Decode with libjpeg-turbo alone, twice as fast as Pillow; raise ValueError for any fault it reports."""
    import simplejpeg

    factor = next((f for f in (8, 4, 2) if at_least and min(size) // f >= 2 * at_least), 1)
    width, height = (-(-side // factor) for side in size)
    pixels = simplejpeg.decode_jpeg(content, colorspace="RGB", min_width=width, min_height=height)
    return np.asarray(pixels, dtype=np.uint8)


def as_rgb(pixels: NDArray[Any], name: object) -> NDArray[np.uint8]:
    """Return pixels uint8[H, W, 3] or [H, W] as uint8[H, W, 3]; raise UnreadableImage for other arrays."""
    if pixels.dtype == np.uint16 and pixels.ndim in (2, 3) and 0 not in pixels.shape:
        return converted(as_channels(pixels), RGB8, name)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise UnreadableImage(name, f"an array {pixels.dtype}{list(pixels.shape)}; expected uint8[H, W, 3] or [H, W]")
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.shape[2] != 3:
        raise UnreadableImage(name, f"an array with {pixels.shape[2]} channels; expected uint8[H, W, 3] or [H, W]")
    return pixels


def _undecodable(content: bytes, name: object, error: Exception) -> UnreadableImage:
    if content[:4] == b"RIFF" and int.from_bytes(content[4:8], "little") + 8 > len(content):
        return UnreadableImage(name, "the WebP file is truncated", "truncated")
    if isinstance(error, UnidentifiedImageError):
        kind = kind_of(content)
        damaged = ", or its header is damaged" if kind is None else f"; it is {kind}"
        return UnreadableImage(name, f"not a JPEG, PNG, WebP, BMP, GIF or TIFF file{damaged}")
    reason = printable(str(error) or type(error).__name__)[:200]
    return UnreadableImage(name, reason, "truncated" if "truncated" in reason.lower() else "unreadable")


#: colour behind transparent pixels
BACKGROUND = (255, 255, 255)

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_PLAIN = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a decoded image in mode RGB; raise ValueError for modes of unknown range.

    8-bit grey and RGB are unchanged; 1 bit becomes 0 and 255; 16 bits are scaled to 8 (65535 becomes 255); a palette is
    looked up; alpha and a transparent colour are composited on white; CMYK and YCCK are converted without a colour
    profile, and inverted Adobe files are recognised.
    """
    if image.mode in _SIXTEEN_BITS:
        scaled = _scaled(image).convert("RGB")
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            scaled.paste(BACKGROUND, mask=Image.fromarray(np.asarray(image) == clear))
        return scaled
    if image.mode in _ALPHA or (image.mode in _PLAIN and image.has_transparency_data):
        return _on_background(image)
    if image.mode in _PLAIN:
        return image.convert("RGB")
    raise ValueError(f"the range of pixels of mode {image.mode} is unknown")


def _scaled(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("the range of pixels beyond 16 bits is unknown")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _on_background(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    ground = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
    return Image.alpha_composite(ground, layer).convert("RGB")
