"""The images of one split as a loader sees them: rows of a cache, or files that are decoded on access."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import printable
from automl_pt.data.parallel import in_order, one_torch_thread
from automl_pt.images.decode import UnreadableImage, decode, read
from automl_pt.images.deep import MissingReader
from automl_pt.images.pixel_format import RGB8, PixelFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: images and their bytes that a thread decodes per item, because single items would cost a quarter more time
BLOCK = 16
BLOCK_BYTES = 4 << 20
Source = Any  # a Path, or an array [H, W, C] or [H, W]


class Images(Protocol):
    """The interface of images [N, C, S, S] of one type that a loader needs; any numpy array has it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, C, S, S)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the pixels."""
        ...

    def __getitem__(self, indices: Any, /) -> NDArray[Any]:
        """Return the images at `indices` int64[B] as [B, C, S, S], or the one at an integer as [C, S, S]."""
        ...


@dataclass(frozen=True)
class Pixels:
    """One split: `images` [N, C, S, S], `labels` int64[N], and the images' names."""

    images: Images
    labels: NDArray[np.int64]
    names: tuple[str, ...]


class Rows:
    """Some rows of an array in some order, copied only on access."""

    def __init__(self, array: NDArray[Any], rows: NDArray[np.int64], copies: dict[str, Any] | None = None) -> None:
        self.array, self.rows = array, rows
        #: copies of `array` on devices, by device name; shared by all rows of one cache
        self.copies = {} if copies is None else copies

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, C, S, S)."""
        return (len(self.rows), *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the pixels."""
        return self.array.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Any, /) -> NDArray[Any]:
        chosen: NDArray[Any] = self.array[self.rows[indices]]
        return chosen

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.array[self.rows], dtype=dtype)


@dataclass(frozen=True)
class Originals:
    """The files (or arrays) behind contents: `index` maps a sha256 to a position in `sources` and `names`.

    They are decoded to the format `pixels`.
    """

    sources: Sequence[Source]
    names: Sequence[str]
    index: Mapping[str, int]
    pixels: PixelFormat = RGB8

    def decode(
        self, digests: Sequence[str], image_size: int, *, threads: int
    ) -> Iterator[tuple[str, NDArray[Any] | UnreadableImage]]:
        """Yield each content with its pixels [C, S, S], in the given order, or with an unreadable one's error.

        Raises InvalidDatasetError if a file no longer matches its digest, InstallationError if a format's library is
        missing.
        """
        of_one = self.pixels.size * image_size * image_size
        size = max(1, min(BLOCK, -(-len(digests) // threads), BLOCK_BYTES // of_one))
        blocks = [digests[start : start + size] for start in range(0, len(digests), size)]
        with one_torch_thread():
            for block in in_order(partial(self._block, image_size), blocks, threads=threads, ahead=2):
                yield from block

    def _block(self, image_size: int, digests: Sequence[str]) -> list[tuple[str, NDArray[Any] | UnreadableImage]]:
        room = np.empty((len(digests), self.pixels.channels, image_size, image_size), self.pixels.dtype)
        return [(digest, self._decoded(digest, out)) for digest, out in zip(digests, room, strict=True)]

    def _decoded(self, digest: str, out: NDArray[Any]) -> NDArray[Any] | UnreadableImage:
        place, image_size = self.index[digest], out.shape[-1]
        try:
            source = self.sources[place]
            if not isinstance(source, Path):
                return decode(source, image_size, name=self.names[place], out=out, pixels=self.pixels)
            content = read(source)
            if hashlib.sha256(content).hexdigest() != digest:
                raise InvalidDatasetError(
                    "a file changed while it was read",
                    given=f"{printable(source)}",
                    remedy="wait until no program writes there, then run the same command again",
                )
            return decode(content, image_size, name=source, out=out, pixels=self.pixels)
        except MissingReader as error:  # not of the image, and not to be kept in a cache
            raise error.installation() from error
        except UnreadableImage as error:
            return error


class Undecoded:
    """Images that are decoded on access, for data too large to be kept decoded."""

    def __init__(self, originals: Originals, digests: Sequence[str], image_size: int, *, threads: int) -> None:
        self.originals, self.digests, self.threads = originals, list(digests), threads
        self.shape = (len(self.digests), originals.pixels.channels, image_size, image_size)
        self.dtype: np.dtype[Any] = np.dtype(originals.pixels.dtype)

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, indices: Any, /) -> NDArray[Any]:
        if isinstance(indices, slice):
            indices = np.arange(len(self))[indices]
        wanted = [self.digests[index] for index in np.atleast_1d(indices)]
        batch = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        results = self.originals.decode(wanted, self.shape[-1], threads=self.threads)
        for row, (_, image) in enumerate(results):
            if isinstance(image, UnreadableImage):
                raise image
            batch[row] = image
        return batch[0] if np.ndim(indices) == 0 else batch
