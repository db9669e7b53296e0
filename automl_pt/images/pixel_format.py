"""The pixels that a network is given: how many channels, and numbers of which type.

Photographs are RGB in 8 bits. Laboratory images keep what they have: one channel or many, 8 or 16 bits, or float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.core.text import counted
from automl_pt.images.read import UnreadableImage
from automl_pt.plugins.readers import DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.plugins.readers import ImageHeader

#: more channels come only from damaged or hostile files
MAX_CHANNELS = 256
#: largest value of each type; float numbers have any range
LARGEST = {"uint8": 255, "uint16": 65535}
_WORDS = {"uint8": "8 bits", "uint16": "16 bits", "float32": "float"}
#: shares of a picture's values that are shown as black, and as white
_DARKEST, _BRIGHTEST = 0.5, 99.5
#: weights of red, green and blue in brightness, in thousandths, which Pillow uses
_LUMA = (299, 587, 114)


@dataclass(frozen=True)
class PixelFormat:
    """Pixels of `channels` numbers of the type `dtype`: uint8, uint16 or float32."""

    channels: int = 3
    dtype: str = "uint8"

    @property
    def is_rgb8(self) -> bool:
        """Return whether these are the pixels of photographs."""
        return self == RGB8

    @property
    def size(self) -> int:
        """Return the bytes of one pixel."""
        return self.channels * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return "RGB, 8 bits" if self.is_rgb8 else f"{counted(self.channels, 'channel')}, {_WORDS[self.dtype]}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values; none for photographs, whose files say what they said before."""
        return {} if self.is_rgb8 else {"channels": self.channels, "dtype": self.dtype}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> PixelFormat:
        """Read the fields from a mapping that may hold others; raise ValueError for impossible ones."""
        channels, dtype = values.get("channels", 3), values.get("dtype", "uint8")
        if type(channels) is not int or not 0 < channels <= MAX_CHANNELS or dtype not in DTYPES:
            raise ValueError(f"pixels of {channels!r} channels of {dtype!r}"[:200])
        return PixelFormat(channels, dtype)


RGB8 = PixelFormat()


def natural(header: ImageHeader) -> PixelFormat:
    """Return the format that loses nothing of an image; 8 bits in one or three channels are a photograph's RGB."""
    found = PixelFormat(header.channels, header.dtype)
    return RGB8 if found.dtype == "uint8" and found.channels in (1, 3) else found


def converted(pixels: NDArray[Any], wanted: PixelFormat, name: object) -> NDArray[Any]:
    """Return [H, W, C] in the `wanted` format; raise UnreadableImage where that would invent or lose channels.

    Grey becomes RGB by repetition, and RGB becomes grey by its brightness. 8 bits become 16 and 16 become 8 by scale.
    Any numbers become float unchanged.
    """
    channels, dtype = pixels.shape[2], str(pixels.dtype)
    if (dtype == "float32") != (wanted.dtype == "float32") and dtype == "float32":
        raise UnreadableImage(name, f"float numbers, whose range is unknown; {wanted} are expected")
    if channels != wanted.channels:
        if {channels, wanted.channels} != {1, 3}:
            found = PixelFormat(channels, dtype)
            raise UnreadableImage(name, f"the image has {found}; {wanted} are expected")
        pixels = np.repeat(pixels, 3, axis=2) if channels == 1 else _brightness(pixels)
    if (dtype, wanted.dtype) == ("uint16", "uint8"):
        return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if (dtype, wanted.dtype) == ("uint8", "uint16"):
        return pixels.astype(np.uint16) * 257
    return pixels.astype(wanted.dtype, copy=False)


def shown(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return [H, W, C] as a picture for people, uint8[H, W, 3]: from its darkest to its brightest values.

    Three channels are stretched together. Of more the first three are shown as red, green and blue, each stretched by
    itself, and of two the first one. uint8 in one or three channels keeps its values.
    """
    if pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3):
        return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)
    chosen = pixels[..., : 3 if pixels.shape[2] >= 3 else 1].astype(np.float32)
    axes = None if pixels.shape[2] == 3 else (0, 1)
    low, high = (np.percentile(chosen, share, axis=axes) for share in (_DARKEST, _BRIGHTEST))
    stretched = (chosen - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    found = np.clip(np.rint(255 * stretched), 0, 255).astype(np.uint8)
    return np.repeat(found, 3, axis=2) if found.shape[2] == 1 else found


def _brightness(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.dtype.kind == "f":
        grey: NDArray[Any] = pixels @ (np.array(_LUMA, np.float32) / 1000)
        return grey[..., None]
    total = (pixels.astype(np.uint32) * np.array(_LUMA, np.uint32)).sum(axis=2, keepdims=True)
    found: NDArray[Any] = ((total + 500) // 1000).astype(pixels.dtype)
    return found
