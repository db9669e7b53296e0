"""Features on disk, beside the decoded images, so that no study computes those of another again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from torch import Tensor

from automl_pt.core.errors import OutputError
from automl_pt.core.files import make_folder, output_error
from automl_pt.core.locks import locked
from automl_pt.data.cache.disk import make_room, pixels_folder
from automl_pt.data.cache.feature_file import (
    FORMAT,
    SUFFIX,
    DamagedFeatures,
    Features,
    append,
    begin,
    file_size,
    read_features,
)
from automl_pt.data.pixels import Images
from automl_pt.features.network import Extractor, batch_size
from automl_pt.images.decode import RULE
from automl_pt.images.preprocessing import Preprocessing

#: images per block of the file, which is the most that a kill loses
BLOCK = 256

Rows = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
T = TypeVar("T")
#: yields (finished, all) images, and returns the result
Pass = Generator[tuple[int, int], None, T]


@dataclass
class FeatureStore:
    """A folder of features; `required` means that the user chose it, so that missing space is an OutputError.

    `computed` counts the images that went through a network, `notes` say if the disk could not be used.
    """

    folder: Path
    required: bool = False
    computed: int = 0
    notes: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, cache_dir: str | None) -> FeatureStore:
        """Return the store in the folder of the settings, or in the user's cache folder."""
        return cls(pixels_folder(cache_dir), bool(cache_dir or os.environ.get("AUTOML_PT_CACHE")))

    def stored(self, key: FeatureKey, digests: Sequence[str]) -> Features | None:
        """Return the features of `digests`; None unless all are on disk."""
        found = _opened(self.folder / key.file, digests)[0]
        return found if found.holds(digests) else None

    def features(
        self, make: Callable[[], Extractor], key: FeatureKey, images: Images, digests: Sequence[str]
    ) -> Pass[Features]:
        """Return features that include those of `images`, whose contents are `digests`.

        Missing ones are computed by what `make` returns, block by block, each stored before the next starts: yields
        (finished images, all images) meanwhile, and an interruption loses at most the last block. A
        second process that needs the same features waits for the first.
        """
        path = self.folder / key.file
        found = _opened(path, digests)[0]
        if not found.holds(digests):
            try:
                found = yield from self._completed(path, make, key, images, digests)
            except OutputError as error:
                if self.required:
                    raise
                self.notes.append(f"features are not stored on disk: {error.in_a_line()}")
                found = yield from self._computed(make(), key, images, digests, found)
        with suppress(OSError):  # records the use, if the folder is writable
            os.utime(path)
        return found

    def _completed(
        self, path: Path, make: Callable[[], Extractor], key: FeatureKey, images: Images, digests: Sequence[str]
    ) -> Pass[Features]:
        make_folder(self.folder)
        with locked(path.with_suffix(".lock")):
            found, end = _opened(path, digests)
            if found.holds(digests):
                return found
            extractor = make()
            make_room(self.folder, file_size(len(digests), extractor.body.dimensions))
            try:
                if end is None:
                    begin(path, key.meta)
                with open(path, "r+b") as stream:
                    stream.seek(0, os.SEEK_END)
                    if end is not None:
                        stream.seek(stream.truncate(end))
                    found = yield from self._computed(extractor, key, images, digests, found, stream)
                    os.fsync(stream.fileno())
            except OSError as error:
                raise output_error(error, path) from error
        return found

    def _computed(
        self,
        extractor: Extractor,
        key: FeatureKey,
        images: Images,
        digests: Sequence[str],
        found: Features,
        stream: BinaryIO | None = None,
    ) -> Pass[Features]:
        """Add the missing features of `digests` to `found`, and to the file."""
        first_rows = {digest: row for row, digest in reversed(list(enumerate(digests)))}
        todo = sorted(row for digest, row in first_rows.items() if digest not in found.places)
        blocks: list[tuple[list[str], Rows]] = []
        size = batch_size(key.preprocessing.image_size, extractor.device)
        for start in range(0, len(todo), BLOCK):
            names, rows = todo[start : start + BLOCK], list[Tensor]()
            for first in range(0, len(names), size):
                yield start + first, len(todo)
                rows.append(extractor(images, np.array(names[first : first + size]), mirrored=key.mirrored))
            block = [digests[row] for row in names], torch.cat(rows).numpy()
            if stream is not None:
                append(stream, *block, extractor.precision)
            self.computed += len(names)
            blocks.append(block)
        yield len(todo), len(todo)
        return found.with_blocks(blocks, extractor.precision)


@dataclass(frozen=True)
class FeatureKey:
    """What features depend on besides the images: the network's weights and layer, the preprocessing, the format."""

    backbone: str
    weights: str
    layer: str
    preprocessing: Preprocessing
    precision: str
    device: str
    dimensions: int
    mirrored: bool = False

    @property
    def meta(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "rule": RULE,
            "backbone": self.backbone,
            "weights": self.weights,
            "layer": self.layer,
            "preprocessing": self.preprocessing.to_dict(),
            "precision": self.precision,
            "device": self.device,
            "dimensions": self.dimensions,
            "mirrored": self.mirrored,
        }

    @property
    def file(self) -> str:
        """Return the file's name, which is the same for the same features only."""
        parts = {
            **self.meta,
            "format": FORMAT,
            "backbone": None,
        }  # a different name of the same weights is the same network
        return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()[:32] + SUFFIX


def _opened(path: Path, digests: Sequence[str]) -> tuple[Features, int | None]:
    """Return what a file holds of `digests`, and the length of its intact part; None if it must be created again."""
    try:
        return read_features(path, digests)
    except (OSError, DamagedFeatures):
        return Features(np.empty((0, 0), np.float32), {}), None
