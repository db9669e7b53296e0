"""Converts any pixel format to RGB by a table, so that nothing is lost silently.

8-bit grey, RGB           unchanged
1 bit                     0 and 255
16-bit grey, RGB          scaled to 8 bits: 65535 becomes 255, 40000 becomes 156
palette                   looked up
alpha, transparent colour composited on `BACKGROUND`, white
CMYK, YCCK                converted without a colour profile; inverted Adobe files are recognised
anything else             refused, because its range is unknown
"""

from __future__ import annotations

import numpy as np
from PIL import Image

#: colour behind transparent pixels
BACKGROUND = (255, 255, 255)

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_PLAIN = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a decoded image in mode RGB; raise ValueError for modes of unknown range."""
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
