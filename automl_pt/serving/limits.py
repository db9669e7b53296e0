"""What a request may cost: checked before the cost arises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from automl_pt.images.decode import UnreadableImage, decode, open_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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


def pixels_of(content: bytes, name: str, image_size: int, limits: Limits) -> NDArray[np.uint8]:
    """Decode an uploaded file to uint8[3, S, S] as prediction does; raise UnreadableImage, also beyond the limit."""
    width, height = open_header(content, name).size
    if width * height > limits.pixels:
        raise UnreadableImage(name, f"{width} x {height} pixels, more than the limit of {limits.pixels:,}", "huge")
    return decode(content, image_size, name=name)
