"""Describes an image of any format without decoding it, and turns one into a picture for people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.images.decode import decode_rgb, open_header, own_pixels
from automl_pt.images.deep import as_channels, checked, header_by, is_deep_png, of_array, png_format, reader_for
from automl_pt.images.pixel_format import RGB8, PixelFormat, natural, shown
from automl_pt.images.read import read

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Described:
    """What a file says of its image: its format's name, its size, and the pixels that lose nothing of it."""

    format: str
    width: int
    height: int
    pixels: PixelFormat = RGB8
    pages: int = 1


def described(content: bytes, name: object) -> Described:
    """Describe an image file of any format; raise UnreadableImage."""
    if (reader := reader_for(content)) is not None:
        found = header_by(reader, content, name)
        return Described(reader.name, found.width, found.height, natural(found), found.pages)
    image = open_header(content, name)
    pixels = png_format(content) if is_deep_png(content) else RGB8
    return Described(image.format or "", *image.size, pixels)


def described_source(source: Path | NDArray[Any], name: object) -> Described:
    """Describe the file or array that a dataset gives; raise UnreadableImage."""
    if isinstance(source, Path):
        return described(read(source), name)
    return Described("array", source.shape[1], source.shape[0], of_array(source, name))


def is_deep(content: bytes) -> bool:
    """Return whether a file is no photograph: its picture is stretched from its darkest to its brightest values."""
    return is_deep_png(content) or reader_for(content) is not None


def picture(
    source: Path | bytes | NDArray[Any], *, name: object = "", at_least: int | None = None
) -> NDArray[np.uint8]:
    """Return an image as people see it, upright, uint8[H, W, 3]; raise UnreadableImage.

    A photograph is as it is, with `at_least` perhaps reduced as `decode_rgb` does.
    """
    if isinstance(source, np.ndarray):
        return np.ascontiguousarray(shown(as_channels(checked(source, name))))
    name = source if isinstance(source, Path) else name
    content = read(source) if isinstance(source, Path) else source
    return shown(own_pixels(content, name)) if is_deep(content) else decode_rgb(content, name, at_least=at_least)
