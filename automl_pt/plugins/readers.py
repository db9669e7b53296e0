"""What reads a further image format: how its files are recognised, and how they become pixels of their own depth.

Readers belong to the process, not to one loading of plugins, because an image is decoded in many threads that know
nothing of plugins: whatever loads plugins adds their readers here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: bytes of a file's beginning that `ImageReader.recognises` receives
BEGINNING = 4096
#: types of the numbers that a reader may return
DTYPES = ("uint8", "uint16", "float32")


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its image before any pixel is decoded.

    `channels` are those that `ImageReader.read` returns, and `dtype` is the type of their numbers, one of `DTYPES`.
    """

    width: int
    height: int
    channels: int = 1
    dtype: str = "uint8"
    #: how many images the file holds, of which the first is read; more than one may be counted as two
    pages: int = 1
    #: the EXIF orientation, 1 to 8, by which the pixels are turned upright
    orientation: int = 1


@dataclass(frozen=True)
class ImageReader:
    """A named image format, such as TIFF, and the functions that read it.

    `recognises(start)` says by a file's first 4,096 bytes whether it is of this format. `header(content)` describes
    the image without decoding it: a file may claim any size, so nothing is allocated by it. `read(content)` decodes
    the first image to uint8, uint16 or float32 [H, W] or [H, W, C]; a truncated or damaged file is an error, never
    partly decoded. Both raise ValueError, whose text is shown with the file's name, and import their library inside:
    where it is missing, `needs` says what installs it. All three are called from any thread.
    """

    name: str
    #: endings of file names, in lower case, with the dot
    suffixes: tuple[str, ...]
    recognises: Callable[[bytes], bool]
    header: Callable[[bytes], ImageHeader]
    read: Callable[[bytes], NDArray[Any]]
    #: the command that installs what `header` and `read` import
    needs: str = ""
    #: one line, for listings
    description: str = ""


_readers: dict[str, ImageReader] = {}


def use_readers(readers: Iterable[ImageReader]) -> None:
    """Read these formats too from now on, in this process."""
    _readers.update((reader.name, reader) for reader in readers)


def reader_of(content: bytes) -> ImageReader | None:
    """Return the reader that recognises a file's content; None if there is none."""
    start = content[:BEGINNING]
    return next((reader for reader in tuple(_readers.values()) if reader.recognises(start)), None)


def reader_suffixes() -> Iterator[tuple[str, str]]:
    """Yield each ending of file names that a reader has, with the name of its format."""
    for reader in tuple(_readers.values()):
        yield from ((suffix, reader.name) for suffix in reader.suffixes)
