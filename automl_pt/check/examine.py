"""Examines one image: decodes it completely, and computes two fingerprints of its content."""

from __future__ import annotations

from typing import TYPE_CHECKING

import imagehash
import numpy as np
from PIL import Image

from automl_pt.check.facts import THUMB, Facts
from automl_pt.images.decode import decode_rgb, open_header, orientation
from automl_pt.images.deep import MissingReader, header_by, reader_for
from automl_pt.images.formats import is_deep, picture
from automl_pt.images.pixel_format import PixelFormat
from automl_pt.images.read import UnreadableImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.plugins.readers import ImageReader

#: side of the picture that the perceptual hash is computed from; twice the hash's own 32 px
_LOOK = 64


def examine(content: bytes, name: object) -> Facts:
    """Decode an image file completely and describe it; never raises for bad content.

    Raises InstallationError if its format's library is missing.
    """
    complaints: list[str] = []
    try:
        if (reader := reader_for(content)) is not None:
            return _by_reader(reader, content, name)
        header = open_header(content, name)
        pixels = decode_rgb(content, name, at_least=_LOOK, complaints=complaints)
        if is_deep(content):  # 8 of its 16 bits may be empty, and would make all images look alike
            pixels = picture(content, name=name)
    except MissingReader as error:
        raise error.installation() from error
    except UnreadableImage as error:
        return Facts(fault=error.kind, reason=error.reason)
    look, thumb = fingerprints(pixels)
    return Facts(
        format="JPEG" if header.format == "MPO" else header.format or "",
        mode=header.mode,
        width=header.size[0],
        height=header.size[1],
        orientation=orientation(header),
        animated=_is_animated(header),
        alpha=header.has_transparency_data and _shines_through(content, name),
        sixteen_bit=header.mode.startswith("I") or (header.format == "PNG" and content[24] == 16),
        complaint="; ".join(complaints),
        look=look,
        thumb=thumb,
    )


def _by_reader(reader: ImageReader, content: bytes, name: object) -> Facts:
    header = header_by(reader, content, name)
    look, thumb = fingerprints(picture(content, name=name))
    return Facts(
        format=reader.name,
        mode=str(PixelFormat(header.channels, header.dtype)),
        width=header.width,
        height=header.height,
        orientation=header.orientation,
        animated=header.pages > 1,
        sixteen_bit=header.dtype == "uint16",
        look=look,
        thumb=thumb,
    )


def fingerprints(pixels: NDArray[np.uint8]) -> tuple[str, str]:
    """Return the fields `look` and `thumb` of uint8[H, W, 3]."""
    image = Image.fromarray(pixels)
    if (factor := min(image.size) // _LOOK) > 1:
        image = image.reduce(factor)
    thumb = image.convert("L").resize((THUMB, THUMB), Image.Resampling.BOX)
    return str(imagehash.phash(image)), np.asarray(thumb).tobytes().hex()


def _is_animated(image: Image.Image) -> bool:
    """Return whether there is a second frame; the second picture of an MPO file is a preview or a stereo view."""
    if image.format == "MPO":
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # damage after the first frame has no effect
        return True


def _shines_through(content: bytes, name: object) -> bool:
    """Return whether any pixel is transparent, not only whether the format allows it."""
    image = open_header(content, name)
    if image.mode.startswith("I"):  # Pillow's own conversion ignores a transparent colour of 16 bits
        return bool((np.asarray(image) == image.info["transparency"]).any())
    return int(np.asarray(image.convert("RGBA").getchannel("A")).min()) < 255
