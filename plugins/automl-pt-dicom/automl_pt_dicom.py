"""DICOM images for automl-pt, read with pydicom: an example of the hook `register_readers`.

Grey images keep their stored numbers, in 8 or 16 bits; where the file states a rescaling, as CT does to Hounsfield
units, or where numbers have a sign, they are float. Colour becomes RGB in 8 bits. Of several frames the first is read.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from automl_pt import ImageHeader, ImageReader, hookimpl

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEEDS = "pip install pydicom"


@hookimpl
def register_readers() -> list[ImageReader]:
    """Return the one format of this plugin."""
    return [
        ImageReader(
            "DICOM",
            (".dcm", ".dicom", ".dic"),
            recognises,
            header,
            read,
            needs=NEEDS,
            description="the first frame, rescaled as the file says",
        )
    ]


def recognises(start: bytes) -> bool:
    """Return whether a file has the mark of DICOM behind its preamble."""
    return start[128:132] == b"DICM"


def header(content: bytes) -> ImageHeader:
    """Return what the tags before the pixels say."""
    import pydicom

    tags = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
    missing = [name for name in ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation") if name not in tags]
    if missing:
        raise ValueError(f"it holds no image: {', '.join(missing)} missing")
    if tags.PhotometricInterpretation == "PALETTE COLOR":
        raise ValueError("colours by a palette; convert it to RGB")
    dtype = "float32" if _is_rescaled(tags) else "uint8" if tags.BitsAllocated <= 8 else "uint16"
    channels, frames = int(tags.get("SamplesPerPixel", 1)), int(tags.get("NumberOfFrames", 1) or 1)
    return ImageHeader(int(tags.Columns), int(tags.Rows), channels, dtype, frames)


def read(content: bytes) -> NDArray[Any]:
    """Return the first frame, with black as the lowest number."""
    import numpy as np
    import pydicom
    from pydicom.pixels import apply_rescale, pixel_array

    tags = pydicom.dcmread(io.BytesIO(content))
    if "PixelData" not in tags:
        raise ValueError("the file is truncated: it has no pixels")
    pixels = pixel_array(tags, index=0)  # colour as RGB
    if _is_rescaled(tags):
        pixels = apply_rescale(pixels, tags).astype(np.float32)
    if tags.PhotometricInterpretation == "MONOCHROME1":
        top = pixels.max() if pixels.dtype.kind == "f" else 2 ** int(tags.BitsStored) - 1
        pixels = (top - pixels).astype(pixels.dtype)
    return np.ascontiguousarray(pixels)


def _is_rescaled(tags: Any) -> bool:
    """Return whether the stored numbers have a sign, more than 16 bits, or a rescaling that changes them."""
    changes = (float(tags.get("RescaleSlope", 1) or 1), float(tags.get("RescaleIntercept", 0) or 0)) != (1.0, 0.0)
    return changes or bool(tags.get("PixelRepresentation", 0)) or tags.BitsAllocated > 16
