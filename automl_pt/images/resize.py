"""Resizes the short side to S with antialiasing and crops the centre; every image goes through this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

#: above this ratio of the sides only the part within the crop is computed, to limit memory
_LONG = 4


def fit(pixels: NDArray[np.uint8], image_size: int, *, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Resize uint8[H, W, 3] to a short side of S = `image_size`, crop the centre, and return uint8[3, S, S].

    With `out`, uint8[3, S, S], the result is written there. Equal to Pillow's bilinear `resize` and a centre crop,
    within one level.
    """
    height, width = pixels.shape[:2]
    if height == width == image_size:
        fitted = pixels.transpose(2, 0, 1)
    elif max(height, width) > _LONG * min(height, width):
        fitted = _fit_long(pixels, image_size)
    else:
        fitted = _fit(pixels, image_size)
    out = np.empty((3, image_size, image_size), np.uint8) if out is None else out
    out[...] = fitted
    return out


def fit_any(pixels: NDArray[Any], image_size: int, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Do the same with pixels [H, W, C] of any type, in float and channel by channel; return [C, S, S] of that type.

    Whole numbers are rounded once. Only the part within the crop is computed, so that long images take no memory.
    """
    rows, columns, channels = pixels.shape
    out = np.empty((channels, image_size, image_size), pixels.dtype) if out is None else out
    box = _box(rows, columns, image_size)
    for channel in range(channels):
        plane = np.ascontiguousarray(pixels[:, :, channel], np.float32)
        if rows != image_size or columns != image_size:
            image = Image.fromarray(plane).resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)
            plane = np.asarray(image)
        out[channel] = plane if out.dtype.kind == "f" else np.rint(plane)
    return out


def resized(height: int, width: int, image_size: int) -> tuple[int, int]:
    """Return height and width after resizing the short side to `image_size`; the long side is rounded down."""
    short = min(height, width)
    return image_size * height // short, image_size * width // short


def offset(length: int, image_size: int) -> int:
    """Return where the centre crop begins, rounded half to even."""
    return round((length - image_size) / 2)


def _fit(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return uint8[3, S, S] as a view with the channels innermost."""
    import torch

    rows, columns = pixels.shape[:2]
    height, width = resized(rows, columns, size)
    top, left = offset(height, size), offset(width, size)
    pixels = pixels if pixels.flags.writeable else pixels.copy()
    # interleaved bytes take torch's vector path; columns come first, so that rows outside the crop are never widened
    image = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    image = _antialiased(image, height, columns)[:, :, top : top + size]
    fitted: NDArray[np.uint8] = _antialiased(image, size, width)[0, :, :, left : left + size].numpy()
    return fitted


def _antialiased(image: Tensor, height: int, width: int) -> Tensor:
    import torch

    return torch.nn.functional.interpolate(image, (height, width), mode="bilinear", antialias=True)


def _fit_long(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    rows, columns = pixels.shape[:2]
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR, box=_box(rows, columns, size))
    return np.asarray(image).transpose(2, 0, 1)


def _box(rows: int, columns: int, size: int) -> tuple[float, float, float, float]:
    """Return the part of an image that the crop shows: left, top, right, bottom."""
    height, width = resized(rows, columns, size)
    top, left = offset(height, size) * rows / height, offset(width, size) * columns / width
    return left, top, min(left + size * columns / width, columns), min(top + size * rows / height, rows)
