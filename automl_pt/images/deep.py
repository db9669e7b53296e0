"""Reads an image at its own depth and with its own channels; photographs are read by `decode`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from automl_pt.core.errors import InstallationError
from automl_pt.core.text import printable
from automl_pt.images.pixel_format import MAX_CHANNELS, PixelFormat, natural
from automl_pt.images.read import MAX_PIXELS, Fault, UnreadableImage
from automl_pt.plugins.readers import DTYPES, ImageHeader, ImageReader, reader_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: limit of the decoded bytes of one image, that of the largest photograph
MAX_DECODED = 3 * MAX_PIXELS
_PNG = b"\x89PNG\r\n\x1a\n"
#: beginnings of the files that Pillow reads, which no reader of a plugin may take over
_OF_PILLOW = (b"\xff\xd8\xff", _PNG, b"GIF8", b"RIFF")
#: channels of a PNG file by its type of colour, and whether the last one is transparency
_OF_COLOUR = {0: (1, False), 2: (3, False), 4: (1, True), 6: (3, True)}
_SIXTEEN = 16
#: how the libraries say that a file ends too early
_TOO_SHORT = ("failed to read", "input stream too small")


class MissingReader(UnreadableImage):
    """An image of a format whose library is not installed."""

    def __init__(self, name: object, reason: str, needs: str) -> None:
        super().__init__(name, f"{reason}; {needs}")
        self.told, self.needs = reason, needs

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, self.told, self.needs)

    def installation(self) -> InstallationError:
        """Return the error for a command that can do nothing without the library."""
        return InstallationError(self.told, given=printable(self.name), remedy=self.needs)


def reader_for(content: bytes) -> ImageReader | None:
    """Return the reader of a file that Pillow does not read; None for the formats of photographs and unknown ones."""
    return None if content.startswith(_OF_PILLOW) else reader_of(content)


def is_deep_png(content: bytes) -> bool:
    """Return whether a file is PNG with 16 bits a channel."""
    return content.startswith(_PNG) and content[24:25] == bytes((_SIXTEEN,)) and content[25:26] in b"\0\2\4\6"


def header_by(reader: ImageReader, content: bytes, name: object) -> ImageHeader:
    """Return what a reader says of a file, within the limits of size; raise UnreadableImage."""
    found = _called(reader, reader.header, content, name)
    if not isinstance(found, ImageHeader) or found.dtype not in DTYPES or not 0 < found.channels <= MAX_CHANNELS:
        raise UnreadableImage(name, f"the reader of {reader.name} describes it as {found!r}"[:300])
    if found.width < 1 or found.height < 1:
        raise UnreadableImage(name, f"{found.width} x {found.height} pixels")
    size = found.width * found.height * PixelFormat(found.channels, found.dtype).size
    if found.width * found.height > MAX_PIXELS or size > MAX_DECODED:
        what = f"{found.width} x {found.height} pixels of {PixelFormat(found.channels, found.dtype)}"
        limit = f"the limit of {MAX_PIXELS:,} pixels and {MAX_DECODED:,} bytes"
        raise UnreadableImage(name, f"{what}, more than {limit}; cut it into tiles or reduce it", "huge")
    return found


def read_by(reader: ImageReader, content: bytes, name: object) -> NDArray[Any]:
    """Return a file's first image upright, [H, W, C] of its own type; raise UnreadableImage."""
    header = header_by(reader, content, name)
    pixels = _called(reader, reader.read, content, name)
    return as_channels(turned(checked(pixels, name), header.orientation))


def checked(pixels: Any, name: object) -> NDArray[Any]:
    """Return pixels that a reader or a dataset gave; raise UnreadableImage for any but finite numbers of our types."""
    if not isinstance(pixels, np.ndarray) or str(pixels.dtype) not in DTYPES or pixels.ndim not in (2, 3):
        came = f"{pixels.dtype}{list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise UnreadableImage(name, f"an array {came}; expected uint8, uint16 or float32 [H, W] or [H, W, C]")
    if 0 in pixels.shape or (pixels.ndim == 3 and pixels.shape[2] > MAX_CHANNELS):
        raise UnreadableImage(name, f"an array {pixels.dtype}{list(pixels.shape)}")
    if pixels.dtype.kind == "f" and (bad := int((~np.isfinite(pixels)).sum())):
        raise UnreadableImage(name, f"{bad:,} of {pixels.size:,} numbers are NaN or infinite; replace them")
    return pixels


def as_channels(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return [H, W] or [H, W, C] as [H, W, C]."""
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return pixels turned upright by an EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return pixels[rows, columns]


def png_format(content: bytes) -> PixelFormat:
    """Return the format of a PNG file with 16 bits a channel."""
    return PixelFormat(_OF_COLOUR[content[25]][0], "uint16")


def deep_png(image: Image.Image, content: bytes, name: object) -> NDArray[np.uint16]:
    """Return an opened PNG with 16 bits as uint16[H, W, C], transparency on white; raise UnreadableImage."""
    channels, has_alpha = _OF_COLOUR[content[25]]
    if channels == 1 and not has_alpha:
        try:
            values = np.asarray(image).astype(np.uint16)
        except Exception as error:  # Pillow's decoders raise many types on damaged data
            raise _failed(name, "", error) from error
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            values[values == clear] = 65535
        return values[:, :, None]
    try:
        import imagecodecs
    except ImportError as error:
        what = "16-bit PNG in colour needs imagecodecs"
        raise MissingReader(name, what, "pip install tifffile imagecodecs") from error
    try:
        pixels = np.asarray(imagecodecs.png_decode(content))
    except Exception as error:  # libpng's faults, of several types
        raise _failed(name, "", error) from error
    pixels = as_channels(checked(pixels, name))
    if pixels.shape[2] == channels:
        return pixels.astype(np.uint16, copy=False)
    share = pixels[..., -1:].astype(np.float64) / 65535
    mixed = pixels[..., :channels] * share + 65535 * (1 - share)
    return np.rint(mixed).astype(np.uint16)


def of_array(pixels: Any, name: object) -> PixelFormat:
    """Return the format that loses nothing of an array of a dataset; raise UnreadableImage for no image."""
    found = as_channels(checked(pixels, name))
    return natural(ImageHeader(found.shape[1], found.shape[0], found.shape[2], str(found.dtype)))


def _called(reader: ImageReader, function: Any, content: bytes, name: object) -> Any:
    try:
        return function(content)
    except ImportError as error:
        raise MissingReader(name, f"{reader.name} images need a library ({error})", reader.needs) from error
    except Exception as error:  # libraries raise many types for damaged files
        raise _failed(name, f"{reader.name}: ", error) from error


def _failed(name: object, format_: str, error: Exception) -> UnreadableImage:
    reason = printable(str(error) or type(error).__name__)[:300]
    if any(words in reason for words in _TOO_SHORT):
        return UnreadableImage(name, f"{format_}the file is truncated: {reason}", "truncated")
    kind: Fault = "truncated" if "truncated" in reason.lower() else "unreadable"
    return UnreadableImage(name, f"{format_}{reason}", kind)
