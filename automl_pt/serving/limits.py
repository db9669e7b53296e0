"""What a request may cost: checked before the cost arises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from automl_pt.images.decode import UnreadableImage, decode, open_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: images of more pixels are large: decoding one takes longer than somebody with a small image should wait
LARGE = 4_000_000
#: scans of a JPEG: each costs a walk over all pixels, however few bytes it has; encoders write about ten
SCANS = 100
_START_OF_SCAN = b"\xff\xda"


@dataclass(frozen=True)
class Limits:
    """Bounds on a request and on the server: what is beyond them is refused, and nothing is cut short."""

    #: of a request's body
    bytes: int = 16 * 1024 * 1024
    #: of an image, as its header says, before any of it is decoded
    pixels: int = 50_000_000
    #: for the body to arrive
    seconds: float = 30.0
    #: connections at a time; one more is answered with 503
    connections: int = 64
    #: images in one forward pass
    batch: int = 64
    #: pixels of the images that wait or are being decoded, large ones and others each; one more is answered with 503
    queue: int = 200_000_000
    #: seconds for which an image waits to be decoded, or for the network, before it is answered with 503
    wait: float = 10.0
    #: bytes of all bodies that are held; a request that would hold more, and more than `small`, is answered with 503
    held: int = 128 * 1024 * 1024
    small: int = 256 * 1024


def is_large(pixels: int) -> bool:
    """Say whether so many pixels take long to decode."""
    return pixels > LARGE


def size_of(content: bytes, name: str, limits: Limits) -> int:
    """Return the number of pixels that an uploaded file's header names; raise UnreadableImage, also beyond a limit."""
    width, height = open_header(content, name).size
    if width * height > limits.pixels:
        raise UnreadableImage(name, f"{width} x {height} pixels, more than the limit of {limits.pixels:,}", "huge")
    if content.startswith(b"\xff\xd8") and (scans := content.count(_START_OF_SCAN)) > SCANS:
        raise UnreadableImage(name, f"a JPEG of {scans:,} scans, more than the limit of {SCANS}", "huge")
    return width * height


def pixels_of(content: bytes, name: str, image_size: int) -> NDArray[np.uint8]:
    """Decode an uploaded file, which `size_of` has passed, to uint8[3, S, S] as prediction does."""
    return decode(content, image_size, name=name)
