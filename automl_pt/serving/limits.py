"""Limits of a request's cost, checked before the cost arises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from automl_pt.images.decode import UnreadableImage, decode
from automl_pt.images.formats import described

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.images.preprocessing import Preprocessing

#: pixels of a large image, whose decoding takes longer than the sender of a small image should wait
LARGE = 4_000_000
#: limit of a JPEG's scans, because each costs a pass over all pixels; encoders write about ten
SCANS = 100
_START_OF_SCAN = b"\xff\xda"


@dataclass(frozen=True)
class Limits:
    """Limits of a request and of the server; requests beyond them are refused, never truncated."""

    #: bytes of a request's body
    bytes: int = 16 * 1024 * 1024
    #: of an image, as stated in its header, before it is decoded
    pixels: int = 50_000_000
    #: seconds for the body to arrive
    seconds: float = 30.0
    #: concurrent connections; further ones are answered with 503
    connections: int = 64
    #: images in one forward pass
    batch: int = 64
    #: pixels of the images that wait or are being decoded, separately for large and other ones; above: 503
    queue: int = 200_000_000
    #: seconds that an image waits for decoding, or for the network, before it is answered with 503
    wait: float = 10.0
    #: bytes of all bodies in memory; a request above `small` that would exceed it is answered with 503
    held: int = 128 * 1024 * 1024
    small: int = 256 * 1024


def is_large(pixels: int) -> bool:
    """Return whether this many pixels take long to decode."""
    return pixels > LARGE


def size_of(content: bytes, name: str, limits: Limits) -> int:
    """Return the number of pixels in an uploaded file's header; raise UnreadableImage, also above a limit."""
    found = described(content, name)
    width, height = found.width, found.height
    if width * height > limits.pixels:
        raise UnreadableImage(name, f"{width} x {height} pixels, more than the limit of {limits.pixels:,}", "huge")
    if content.startswith(b"\xff\xd8") and (scans := content.count(_START_OF_SCAN)) > SCANS:
        raise UnreadableImage(name, f"a JPEG of {scans:,} scans, more than the limit of {SCANS}", "huge")
    return width * height


def pixels_of(content: bytes, name: str, rule: Preprocessing) -> NDArray[Any]:
    """Decode an uploaded file, after `size_of`, to [C, S, S] as in prediction."""
    return decode(content, rule.image_size, name=name, pixels=rule.pixels)
