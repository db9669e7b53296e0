"""Finds out what pixels the images of a dataset have, so that a network is made for these.

Photographs are RGB in 8 bits, whatever their files hold: that is the rule of all earlier versions. Images with more
bits or other channels keep them. A sample decides whether there are any; if so, every file's header is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import counted, few
from automl_pt.data.split import names_of
from automl_pt.images.deep import MissingReader, is_deep_png
from automl_pt.images.formats import Described, described_source
from automl_pt.images.pixel_format import RGB8, PixelFormat
from automl_pt.images.read import UnreadableImage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from automl_pt.config import Settings
    from automl_pt.dataset import LabeledImages

#: files that are looked at first, by a few bytes; of arrays, which may have to be made, the first one stands for all
SAMPLE = 256
DTYPES = {"8": "uint8", "16": "uint16", "float": "float32"}
_START = 32
_PHOTOGRAPHS = (b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM")
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Survey:
    """The format that is used, and sentences on what was found and what becomes of it."""

    pixels: PixelFormat = RGB8
    notes: tuple[str, ...] = ()


def survey_pixels(images: LabeledImages, settings: Settings) -> Survey:
    """Return the format of a dataset's pixels: as the settings say, else what the images have.

    Raises InvalidDatasetError if their channels cannot be brought together, InstallationError if the library of their
    format is missing. Unreadable images are passed over, because decoding reports them.
    """
    names, count = names_of(images), len(images)
    found = _described(images, names, range(min(count, 1)))
    are_files = all(one.format != "array" for one in found.values())
    if are_files:
        found = _described(images, names, np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(int)).tolist())
    if are_files and any(not one.pixels.is_rgb8 for one in found.values()):
        found = _described(images, names, range(count))
    notes, fallback = [], _without_library(found, settings)
    if fallback:
        found = {name: one for name, one in found.items() if name not in fallback}
        notes.append(
            f"{counted(len(fallback), 'PNG file')} in colour with 16 bits are reduced to 8, because imagecodecs is not "
            "installed: pip install tifffile imagecodecs"
        )
    formats = {name: one.pixels for name, one in found.items()}
    dtype, said = _dtype(formats, settings.depth)
    pixels = PixelFormat(settings.channels or _channels(formats), dtype)
    several = [name for name, one in found.items() if one.pages > 1]
    if several:
        notes.append(f"{counted(len(several), 'file')} of several images: only the first is used ({few(several, 3)})")
    return Survey(pixels, (*_found(formats, pixels), *said, *notes))


def conversion_note(sources: Sequence[Path | NDArray[Any]], pixels: PixelFormat) -> str | None:
    """Say how many of the images that a model is used on have other pixels than it takes, by a sample of them."""
    found: dict[str, int] = {}
    chosen = np.unique(np.linspace(0, len(sources) - 1, min(len(sources), SAMPLE)).astype(int)).tolist()
    for source in (sources[index] for index in chosen):
        try:
            is_photograph = isinstance(source, Path) and _is_photograph(source)
            own = RGB8 if is_photograph else described_source(source, source).pixels
        except UnreadableImage:  # its prediction says so
            continue
        if own != pixels:
            found[str(own)] = found.get(str(own), 0) + 1
    if not found:
        return None
    kinds = ", ".join(f"{count} have {kind}" for kind, count in found.items())
    return (
        f"of {counted(len(chosen), 'image')} looked at, {kinds}; the model takes {pixels}, to which they are converted"
    )


def _described(images: LabeledImages, names: Sequence[str], indices: Iterable[int]) -> dict[str, Described]:
    found = {}
    for index in indices:
        try:
            source = images.images[index]
            is_photograph = isinstance(source, Path) and _is_photograph(source)
            found[names[index]] = Described("", 0, 0) if is_photograph else described_source(source, names[index])
        except MissingReader as error:
            raise error.installation() from error
        except UnreadableImage:  # decoding reports it
            continue
    return found


def _is_photograph(path: Path) -> bool:
    """Return whether a file's first bytes show a photograph, so that the rest need not be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError):
        return False
    try:
        start = os.read(descriptor, _START)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return start.startswith(_PHOTOGRAPHS) or (start.startswith(_PNG) and not is_deep_png(start))


def _without_library(found: Mapping[str, Described], settings: Settings) -> list[str]:
    """Return the PNG files whose 16 bits in colour cannot be read here, unless the user asked for these."""
    if settings.depth != "auto" or find_spec("imagecodecs") is not None:
        return []
    return [name for name, one in found.items() if one.format == "PNG" and one.pixels == PixelFormat(3, "uint16")]


def _channels(formats: Mapping[str, PixelFormat]) -> int:
    counts = {one.channels for one in formats.values()} or {3}
    if len(counts) == 1:
        return counts.pop()
    if counts == {1, 3}:
        return 3
    examples = {one.channels: name for name, one in reversed(list(formats.items()))}
    shown = [f"{few([examples[count]])}: {counted(count, 'channel')}" for count in sorted(counts)]
    raise InvalidDatasetError(
        "the images have different numbers of channels, which no network takes together",
        given="; ".join(shown),
        remedy="write them with the same channels, or train on those of one kind",
    )


def _dtype(formats: Mapping[str, PixelFormat], asked: str) -> tuple[str, list[str]]:
    """Return the type of the pixels, and a note if images of other types are converted."""
    kinds = {one.dtype for one in formats.values()} or {"uint8"}
    if asked != "auto":
        return DTYPES[asked], []
    if len(kinds) == 1:
        return kinds.pop(), []
    if "float32" in kinds:
        others = [name for name, one in formats.items() if one.dtype != "float32"]
        return "float32", [f"{counted(len(others), 'image')} of whole numbers are used as float ({few(others, 3)})"]
    deep = [name for name, one in formats.items() if one.dtype == "uint16"]
    what = f"{counted(len(deep), 'image')} with 16 bits ({few(deep, 3)}) {'is' if len(deep) == 1 else 'are'} reduced"
    rest = len(formats) - len(deep)
    why = f"{counted(rest, 'other')} {'has' if rest == 1 else 'have'} 8 bits"
    return "uint8", [f"{what} from 65,536 levels of brightness to 256, because {why}; --depth 16 keeps them"]


def _found(formats: Mapping[str, PixelFormat], pixels: PixelFormat) -> list[str]:
    """State what the images have and what is used, unless both are photographs."""
    if pixels.is_rgb8 and all(one.is_rgb8 for one in formats.values()):
        return []
    kinds: dict[str, int] = {}
    for one in formats.values():
        kinds[str(one)] = kinds.get(str(one), 0) + 1
    counts = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items(), key=lambda pair: -pair[1]))
    used = "used as they are" if list(kinds) == [str(pixels)] else f"used as {pixels}"
    return [f"images found: {counts}; {used}"]
