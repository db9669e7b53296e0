"""Thumbnails for HTML pages: limited in side and bytes, as JPEG in a data URI, so that a page needs no other file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from automl_pt.core.errors import DatasetError
from automl_pt.images.formats import picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: longest side in pixels
SIDE = 112
QUALITY = 80
#: side of a picture under a heat map
VIEW = 192
#: opacity of a heat map's colour where the map is 1
COVER = 0.6
_HOT = np.array([255, 60, 0], np.float32)


def thumbnail(source: Path | bytes | NDArray[Any], side: int = SIDE) -> str | None:
    """Return a picture of at most `side` pixels; None for an image that cannot be decoded."""
    try:
        pixels = picture(source, at_least=side)
    except DatasetError:
        return None
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((side, side))
    factor = side // max(image.size)
    if factor > 2:  # tiny pictures are enlarged in whole pixels, because a browser would blur them
        image = image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)
    return _data_uri(image)


def view(pixels: NDArray[np.uint8], heat: NDArray[np.float32] | None = None, side: int = VIEW) -> str:
    """Return square pixels uint8[3, S, S] as a picture, under a heat map float32[h, w] from 0 to 1 if given."""
    resampling = Image.Resampling.NEAREST if pixels.shape[-1] < side else Image.Resampling.BILINEAR
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).resize((side, side), resampling)
    if heat is None:
        return _data_uri(image)
    grey = np.asarray(image.convert("L"), np.float32)[..., None].repeat(3, axis=2)
    large = Image.fromarray(heat.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    share = COVER * np.clip(np.asarray(large, np.float32), 0, 1)[..., None]
    return _data_uri(Image.fromarray((grey * (1 - share) + _HOT * share).astype(np.uint8)))


def _data_uri(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
