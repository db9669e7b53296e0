"""Reads TIFF files by tifffile and imagecodecs, the extra `lab`: any depth, any number of channels, the first page.

tifffile, because it is what laboratories write and read these files with: it knows tiles, planes, BigTIFF, LZW,
deflate, zstd and JPEG, and 16 bits in any number of channels. Pillow reads 16 bits in one channel only, and OpenCV
drops the tags that say which channel is transparent.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from automl_pt.plugins.hookspecs import hookimpl
from automl_pt.plugins.readers import ImageHeader, ImageReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NEEDS = "pip install tifffile imagecodecs"
#: limit of the bytes of one tile, against files that claim huge tiles
MAX_TILE = 1 << 28
_WHITE_IS_ZERO, _PALETTE, _CMYK = 0, 3, 5
_READ = (_WHITE_IS_ZERO, 1, 2, _PALETTE, 4, _CMYK, 6, 32844, 34892)
#: values of the tag ExtraSamples that mean transparency: premultiplied, and not
_ALPHA = (1, 2)


@hookimpl
def register_readers() -> list[ImageReader]:
    """Register TIFF."""
    return [TIFF]


def recognises(start: bytes) -> bool:
    """Return whether a file is TIFF or BigTIFF."""
    return start.startswith(MAGICS)


def header(content: bytes) -> ImageHeader:
    """Return what the first page's tags say."""
    with _first_page(content) as (page, pages):
        channels = 3 if int(page.photometric) in (_PALETTE, _CMYK) else page.samplesperpixel - bool(_transparent(page))
        dtype = "uint8" if int(page.photometric) in (_PALETTE, _CMYK) else _kept_as(page.dtype)
        found = page.tags.get("Orientation")
        turned = found.value if found is not None and found.value in range(1, 9) else 1
        return ImageHeader(page.imagewidth, page.imagelength, channels, dtype, pages, int(turned))


def read(content: bytes) -> NDArray[Any]:
    """Return the first page's pixels [H, W, C], transparency on white."""
    import numpy as np

    with _first_page(content) as (page, _):
        _require_whole(page, len(content))
        pixels = page.asarray(maxworkers=1, squeeze=False)  # [planes, depth, height, width, contiguous samples]
        pixels = np.moveaxis(pixels[:, 0], 0, 2)  # [height, width, planes, contiguous samples]
        pixels = pixels.reshape(page.imagelength, page.imagewidth, -1)
        kind, most = int(page.photometric), _most(page)
        if kind == _PALETTE:
            return _looked_up(page, pixels)
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8)
        if pixels.dtype.kind == "u" and page.bitspersample < 8 * pixels.dtype.itemsize:
            top = np.iinfo(pixels.dtype).max  # 1, 4 or 12 bits, spread over all values
            pixels = ((pixels.astype(np.uint32) * int(top) + most // 2) // most).astype(pixels.dtype)
            most = int(top)
        if kind == _WHITE_IS_ZERO and pixels.dtype.kind == "u":
            pixels = (most - pixels).astype(pixels.dtype)
        if kind == _CMYK:
            return _from_cmyk(pixels)
        if (alpha := _transparent(page)) is not None:
            pixels = _on_white(pixels, alpha, int(page.extrasamples[alpha - page.samplesperpixel]) == 1, most)
        return np.ascontiguousarray(pixels, _kept_as(pixels.dtype))


TIFF = ImageReader(
    "TIFF",
    (".tif", ".tiff"),
    recognises,
    header,
    read,
    needs=NEEDS,
    description="8 to 16 bits and float, any number of channels, the first page",
)


@contextmanager
def _first_page(content: bytes) -> Iterator[tuple[Any, int]]:
    """Yield the first page, and 2 where there are more; raise ValueError for what cannot be read."""
    import imagecodecs  # noqa: F401  # tifffile reads LZW, JPEG and others by it alone
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs damage that is reported as an error here
    with tifffile.TiffFile(io.BytesIO(content)) as tif:
        if not tif.pages:
            raise ValueError("a TIFF file without pages")
        page: Any = tif.pages[0]
        _require_readable(page)
        yield page, 1 + _has_second(tif)


def _has_second(tif: Any) -> bool:
    try:
        return tif.pages[1] is not None
    except Exception:  # none, or a damaged one, which is not read
        return False


def _require_readable(page: Any) -> None:
    if page.dtype is None or not page.imagewidth or not page.imagelength:
        raise ValueError(f"{page.imagewidth} x {page.imagelength} pixels of {page.bitspersample} bits")
    if page.imagedepth > 1:
        raise ValueError(f"a volume of {page.imagedepth} slices; write each slice as a file")
    if page.dtype.kind == "c":
        raise ValueError("complex numbers, which are no brightness; write their magnitude")
    kind = int(page.photometric)
    if kind not in _READ:
        raise ValueError(f"colours of the kind {getattr(page.photometric, 'name', kind)}; convert them to RGB")
    if page.is_tiled and page.tilewidth * page.tilelength * page.samplesperpixel * page.dtype.itemsize > MAX_TILE:
        raise ValueError(f"tiles of {page.tilewidth} x {page.tilelength} pixels, more than the limit")


def _require_whole(page: Any, length: int) -> None:
    """Raise ValueError for parts that are missing or beyond the file's end, which would be read as black."""
    wide = math.ceil(page.imagewidth / page.tilewidth) if page.is_tiled else 1
    high = page.tilelength if page.is_tiled else page.rowsperstrip
    planes = page.samplesperpixel if int(page.planarconfig or 1) == 2 else 1
    expected = wide * math.ceil(page.imagelength / high) * planes
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    whole = sum(start > 0 and size > 0 and start + size <= length for start, size in parts)
    if whole < (1 if page.is_contiguous else expected):
        raise ValueError(f"the file is truncated: {whole} of {expected} parts of the image are in it")


def _transparent(page: Any) -> int | None:
    """Return the channel that is transparency; None if there is none."""
    extra = [int(value) for value in page.extrasamples]
    return next((page.samplesperpixel - len(extra) + i for i, value in enumerate(extra) if value in _ALPHA), None)


def _kept_as(dtype: Any) -> str:
    """Return the type in which numbers are kept: as they are in 8 and 16 bits without a sign, else float."""
    name = "uint8" if str(dtype) == "bool" else str(dtype).lstrip("<>=")
    return {"uint8": "uint8", "u1": "uint8", "uint16": "uint16", "u2": "uint16"}.get(name, "float32")


def _most(page: Any) -> int:
    return int(2 ** int(page.bitspersample) - 1)


def _looked_up(page: Any, indices: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    if page.colormap is None or indices.max() >= page.colormap.shape[1]:
        raise ValueError("a palette that lacks colours of the image")
    colours = np.asarray(page.colormap)
    return np.ascontiguousarray((colours[:, indices[..., 0]] >> 8).astype(np.uint8).transpose(1, 2, 0))


def _from_cmyk(pixels: NDArray[Any]) -> NDArray[Any]:
    import numpy as np
    from PIL import Image

    if str(pixels.dtype) != "uint8" or pixels.shape[2] != 4:
        raise ValueError(f"CMYK of {pixels.dtype} in {pixels.shape[2]} channels; convert it to RGB")
    return np.array(Image.fromarray(pixels, "CMYK").convert("RGB"))


def _on_white(pixels: NDArray[Any], alpha: int, is_premultiplied: bool, most: int) -> NDArray[Any]:
    import numpy as np

    if pixels.dtype.kind == "f":
        raise ValueError("transparency of float numbers; write the image without it")
    share = pixels[..., alpha : alpha + 1].astype(np.float64) / most
    colours = np.delete(pixels, alpha, axis=2).astype(np.float64)
    mixed = colours * (1.0 if is_premultiplied else share) + most * (1 - share)
    return np.clip(np.rint(mixed), 0, most).astype(pixels.dtype)
