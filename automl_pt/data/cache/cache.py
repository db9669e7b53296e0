"""Decodes each image once, for all trials, epochs, workers and later studies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from automl_pt.core.errors import OutputError
from automl_pt.core.files import atomic_file, make_folder, naming_the_variable, read_json, write_json
from automl_pt.core.locks import locked
from automl_pt.data.cache.disk import SUFFIX, gigabytes, list_caches, make_room, mark_path
from automl_pt.data.cache.pool_file import FORMAT, DamagedPool, Pool, PoolWriter, file_size, open_pool
from automl_pt.data.memory import available_memory
from automl_pt.data.pixels import Images, Originals, Rows, Undecoded
from automl_pt.images.decode import RULE, UnreadableImage
from automl_pt.images.pixel_format import RGB8, PixelFormat

Progress = Callable[[str, int, int], None]
Row = tuple[str, "np.ndarray[tuple[int, ...], np.dtype[Any]] | str"]

#: share of the free memory for decoded images if the cache folder has no space
MEMORY_SHARE = 0.25


@dataclass(frozen=True)
class Decoded:
    """Decoded images: `view(digests)` returns the requested ones; `unreadable` maps a sha256 to the reason."""

    view: Callable[[Sequence[str]], Images]
    unreadable: Mapping[str, str]


@dataclass
class Cache:
    """A folder of caches, and statistics of filling it.

    With `required`, because the user chose the folder, images that do not fit there raise OutputError; otherwise they
    are kept in memory, or decoded for each batch, and `notes` says so.
    """

    folder: Path
    required: bool = False
    threads: int = 1
    progress: Progress | None = None
    #: number of images decoded through this object
    decoded: int = 0
    notes: list[str] = field(default_factory=list)

    def images(
        self, originals: Originals, digests: Sequence[str], image_size: int, *, unreadable: Mapping[str, str]
    ) -> Decoded:
        """Return the images behind `digests`, decoded now unless cached; `unreadable` is known beforehand.

        Raises OutputError, before anything is decoded, if the folder is `required` and has no space.
        """
        wanted = list(dict.fromkeys(digests))
        try:
            with naming_the_variable("--cache-dir"):
                return _as_decoded(self._pool(originals, wanted, image_size, unreadable))
        except OutputError as error:
            if self.required:
                raise
            return self._without_disk(originals, wanted, image_size, unreadable, error)

    def _pool(self, originals: Originals, digests: list[str], image_size: int, unreadable: Mapping[str, str]) -> Pool:
        pixels = originals.pixels
        path = self.folder / f"{cache_key(digests, image_size, pixels)}{SUFFIX}"
        pool = opened(path, image_size, digests, pixels)
        if pool is not None:
            return pool
        make_folder(self.folder)
        with locked(path.with_suffix(".lock")):
            # another process may have built it during the wait for the lock
            pool = opened(path, image_size, digests, pixels)
            if pool is None:
                self._build(path, originals, digests, image_size, unreadable)
                pool = open_pool(path, image_size=image_size, pixels=pixels)
        return pool

    def _build(
        self, path: Path, originals: Originals, digests: list[str], image_size: int, unreadable: Mapping[str, str]
    ) -> None:
        removed = make_room(self.folder, file_size(len(digests), image_size, originals.pixels))
        if removed:
            freed = gigabytes(sum(cache.size for cache in removed))
            self.notes.append(f"{len(removed)} caches unused for a day were removed to free space ({freed})")
        with atomic_file(path) as stream:
            writer = PoolWriter(stream, image_size, originals.pixels)
            for digest, image in self._rows(originals, digests, image_size, unreadable):
                if isinstance(image, str):
                    writer.unreadable[digest] = image
                else:
                    writer.add(digest, image)
            writer.finish()
        write_json(mark_path(path), _identity(path))

    def _rows(
        self, originals: Originals, digests: list[str], image_size: int, unreadable: Mapping[str, str]
    ) -> Iterator[Row]:
        """Yield each content's pixels, or the reason why it has none; content in another cache is not decoded again."""
        held: dict[str, tuple[Pool, int]] = {}
        known = dict(unreadable)
        for donor in _donors(self.folder, image_size, originals.pixels):
            rows = donor.rows(digests)
            held.update((digests[place], (donor, int(rows[place]))) for place in np.flatnonzero(rows >= 0))
            known.update(donor.unreadable)
        fresh = self._decode(originals, [one for one in digests if one not in held and one not in known], image_size)
        for digest in digests:
            if digest in held:
                donor, row = held[digest]
                yield digest, donor.images[row]
            elif digest in known:
                yield digest, known[digest]
            else:
                yield next(fresh)

    def _decode(self, originals: Originals, digests: list[str], image_size: int) -> Iterator[Row]:
        results = originals.decode(digests, image_size, threads=self.threads)
        for done, (digest, image) in enumerate(results, 1):
            self.decoded += 1
            if self.progress is not None:
                self.progress("decoding", done, len(digests))
            yield digest, image.reason if isinstance(image, UnreadableImage) else image

    def _without_disk(
        self,
        originals: Originals,
        digests: list[str],
        image_size: int,
        unreadable: Mapping[str, str],
        error: OutputError,
    ) -> Decoded:
        """Keep the images in memory if they fit; else decode them now, to find unreadable ones, and for each batch."""
        pixels = originals.pixels
        needed = file_size(len(digests), image_size, pixels)
        in_memory = needed <= MEMORY_SHARE * available_memory()
        how = "are kept in this process's memory" if in_memory else "are decoded again for each batch"
        self._note(f"no cache on disk ({error.given}): images {how}. {error.remedy[:1].upper()}{error.remedy[1:]}")
        images = np.empty((len(digests) if in_memory else 0, pixels.channels, image_size, image_size), pixels.dtype)
        kept: list[str] = []
        bad: dict[str, str] = {}
        for digest, image in self._rows(originals, digests, image_size, unreadable):
            if isinstance(image, str):
                bad[digest] = image
            elif in_memory:
                images[len(kept)] = image
                kept.append(digest)
        if in_memory:
            return _as_decoded(Pool(images[: len(kept)], np.array(kept, "S64"), bad))
        return Decoded(lambda chosen: Undecoded(originals, chosen, image_size, threads=self.threads), bad)

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def cache_key(digests: Sequence[str], image_size: int, pixels: PixelFormat = RGB8) -> str:
    """Return a cache's name: the same for the same contents in any order, different for another size, rule or format.

    That of photographs is the name that earlier versions gave.
    """
    kind = "" if pixels.is_rgb8 else f" {pixels.channels} {pixels.dtype}"
    digest = hashlib.sha256(f"{FORMAT} {RULE} {image_size}{kind}\n".encode())
    for one in sorted(digests):
        digest.update(one.encode())
    return digest.hexdigest()[:32]


def opened(path: Path, image_size: int, digests: Sequence[str] = (), pixels: PixelFormat = RGB8) -> Pool | None:
    """Open a cache that holds all of `digests`; None if it does not exist, or is damaged.

    Its checksum is verified unless the file is unchanged since the last verification.
    """
    try:
        identity = _identity(path)
        trusted = _mark(path) == identity
        pool = open_pool(path, image_size=image_size, pixels=pixels, verify=not trusted)
    except (FileNotFoundError, DamagedPool):
        return None
    except OSError:  # not readable for this user; treated as missing, and building it reports the reason
        return None
    rows = pool.rows(list(digests))
    if any(digest not in pool.unreadable for digest, row in zip(digests, rows, strict=True) if row < 0):
        return None
    with suppress(OSError, OutputError):  # a read-only folder is sufficient
        if trusted:
            os.utime(mark_path(path))
        else:
            write_json(mark_path(path), identity)
    return pool


def _as_decoded(pool: Pool) -> Decoded:
    copies: dict[str, Any] = {}
    return Decoded(lambda digests: Rows(pool.images, pool.rows(list(digests)), copies), pool.unreadable)


def _donors(folder: Path, image_size: int, pixels: PixelFormat) -> Iterator[Pool]:
    for cache in list_caches(folder):
        if cache.kind == "pixels" and cache.image_size == image_size and _mark(cache.path) == _identity(cache.path):
            pool = opened(cache.path, image_size, pixels=pixels)
            if pool is not None:
                yield pool


def _identity(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _mark(path: Path) -> object:
    try:
        return read_json(mark_path(path))
    except (OSError, ValueError):  # no mark, or a damaged one: the checksum is verified
        return None
