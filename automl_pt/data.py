"""A run's data: found, split once, and decoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.dataset import Hints, LabeledImages, Split
from automl_pt.errors import InvalidDatasetError, UnknownNameError
from automl_pt.files import sha256_file
from automl_pt.images import decode
from automl_pt.layouts import grouped, open_path
from automl_pt.manifest import Manifest
from automl_pt.split import freeze, names_of, require_classes
from automl_pt.text import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.config import Settings
    from automl_pt.plugins import Plugins

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Pixels:
    """The images of one split: uint8[N, 3, S, S], int64[N], names."""

    images: Any
    labels: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Data:
    """A frozen split, and the way to its pixels."""

    manifest: Manifest
    hints: Hints
    notes: tuple[str, ...]
    _sources: dict[str, Any] = field(repr=False)
    _memory: dict[tuple[str, int], Pixels] = field(default_factory=dict, repr=False)

    def pixels(self, split: Split, image_size: int) -> Pixels:
        """Return a split's images at side `image_size`."""
        if (split, image_size) not in self._memory:
            entries = [self.manifest.entries[index] for index in self.manifest.indices(split)]
            images = np.empty((len(entries), 3, image_size, image_size), np.uint8)
            for row, entry in enumerate(entries):
                images[row] = decode(self._sources[entry.name], image_size)
            labels = np.array([entry.label for entry in entries], np.int64)
            self._memory[split, image_size] = Pixels(images, labels, tuple(entry.name for entry in entries))
        return self._memory[split, image_size]


def prepare(
    settings: Settings, plugins: Plugins, *, manifest: Path | None = None, progress: Progress | None = None
) -> Data:
    """Find the data that `settings` name, and freeze their split in the file `manifest` unless it is there already."""
    found, hints = find(settings, plugins)
    names = names_of(found)
    if manifest is not None and manifest.exists():
        frozen = Manifest.load(manifest)
    else:
        frozen = freeze(
            found,
            [_digest(image) for image in found.images],
            val_fraction=settings.val_fraction,
            test_fraction=settings.test_fraction,
            seed=settings.seed,
            source=settings.dataset,
        )
        require_classes(frozen)
        if manifest is not None:
            frozen.save(manifest)
    return Data(frozen, hints, tuple(found.notes), dict(zip(names, found.images, strict=True)))


def find(settings: Settings, plugins: Plugins) -> tuple[LabeledImages, Hints]:
    """Return the images that `settings.dataset` names: a registered dataset, else a path."""
    datasets = plugins.datasets()
    if settings.dataset in datasets:
        dataset = datasets[settings.dataset]
        root = Path(settings.root) if settings.root is not None else None
        if settings.download and dataset.download is not None:
            dataset.download(root)
        images = dataset.load(root)
        return (images if settings.group_by is None else grouped(images, settings.group_by)), dataset.hints
    path = Path(settings.dataset)
    if not path.exists():
        raise _not_found(settings.dataset, list(datasets))
    columns = ("image_column", "label_column", "split_column", "group_column", "group_by")
    return open_path(path, **{name: getattr(settings, name) for name in columns}), Hints()


def _not_found(dataset: str, known: Sequence[str]) -> UnknownNameError | InvalidDatasetError:
    if "/" in dataset or dataset.startswith("."):
        return InvalidDatasetError("the data must exist", given=printable(dataset), remedy="check the path")
    remedy = "`automl-pt datasets` lists all of them; a path must exist"
    return UnknownNameError("dataset or path", dataset, known, remedy=remedy)


def _digest(image: Path | NDArray[np.uint8]) -> str:
    if isinstance(image, Path):
        return sha256_file(image)
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
