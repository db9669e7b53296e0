"""The usual image sets as `torchvision/NAME`: found under --root, downloaded by torchvision with --download.

The table is static, so listing imports no torch. torchvision reads the files, except CIFAR's pickles, which
`cifar` reads without unpickling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from automl_pt.builtin import cifar
from automl_pt.builtin.torchvision_parts import (
    DatasetPart,
    annotated_files,
    arrays,
    emnist,
    gtsrb,
    samples,
    stl10,
    svhn,
)
from automl_pt.core.errors import AutomlError, InvalidDatasetError
from automl_pt.dataset import Dataset, Hints, LabeledImages, Split
from automl_pt.plugins.hookspecs import hookimpl

PREFIX = "torchvision/"
#: hints for digits, letters and signs, whose mirror images mean something else
UNMIRRORED = partial(Hints, horizontal_flip=False)

Parts = Mapping[Split, Mapping[str, Any]]
BY_FLAG: Parts = {"train": {"train": True}, "test": {"train": False}}
BY_NAME: Parts = {"train": {"split": "train"}, "test": {"split": "test"}}
IN_THREE: Parts = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}


@dataclass(frozen=True)
class KnownDataset:
    """A dataset of torchvision: its class there, the arguments for each split, and how its object is read.

    `read` is None for CIFAR, which torchvision would unpickle.
    """

    name: str
    description: str
    parts: Parts
    read: Callable[[Any], DatasetPart] | None
    hints: Hints = field(default_factory=Hints)
    license: str | None = None


TABLE = (
    KnownDataset("CIFAR10", "60 000 photos, 32 px, 10 classes", BY_FLAG, None, Hints(image_size=32)),
    KnownDataset("CIFAR100", "60 000 photos, 32 px, 100 classes", BY_FLAG, None, Hints(image_size=32)),
    KnownDataset("DTD", "5640 textures, 47 classes; partition 1", IN_THREE, annotated_files),
    KnownDataset(
        "EMNIST",
        "131 600 handwritten letters and digits, 28 px, 47 classes (balanced)",
        {"train": {"split": "balanced", "train": True}, "test": {"split": "balanced", "train": False}},
        emnist,
        UNMIRRORED(image_size=28),
    ),
    KnownDataset(
        "EuroSAT", "27 000 satellite images, 64 px, 10 classes", {"train": {}}, samples, Hints(image_size=64), "MIT"
    ),
    KnownDataset("FGVCAircraft", "10 000 photos of aircraft, 100 variants", IN_THREE, annotated_files),
    KnownDataset(
        "FashionMNIST", "70 000 photos of clothes, 28 px, 10 classes", BY_FLAG, arrays, Hints(image_size=28), "MIT"
    ),
    KnownDataset("Flowers102", "8189 photos of flowers, 102 classes", IN_THREE, annotated_files),
    KnownDataset("Food101", "101 000 photos of dishes, 101 classes", BY_NAME, annotated_files),
    KnownDataset("GTSRB", "51 839 photos of traffic signs, 43 classes", BY_NAME, gtsrb, UNMIRRORED(image_size=48)),
    KnownDataset(
        "Imagenette",
        "13 394 photos, 10 classes of ImageNet",
        {"train": {"split": "train"}, "val": {"split": "val"}},
        samples,
    ),
    KnownDataset(
        "KMNIST", "70 000 old Japanese letters, 28 px, 10 classes", BY_FLAG, arrays, UNMIRRORED(image_size=28),
        "CC-BY-SA-4.0",
    ),
    KnownDataset("MNIST", "70 000 handwritten digits, 28 px, 10 classes", BY_FLAG, arrays, UNMIRRORED(image_size=28)),
    KnownDataset(
        "OxfordIIITPet",
        "7349 photos of cats and dogs, 37 breeds",
        {"train": {"split": "trainval"}, "test": {"split": "test"}},
        annotated_files,
        license="CC-BY-SA-4.0",
    ),
    KnownDataset("STL10", "13 000 photos, 96 px, 10 classes", BY_NAME, stl10, Hints(image_size=96)),
    KnownDataset("SVHN", "99 289 house numbers, 32 px, 10 classes", BY_NAME, svhn, UNMIRRORED(image_size=32)),
)  # fmt: skip


@hookimpl
def register_datasets() -> list[Dataset]:
    """Register torchvision's classification sets."""
    return [
        Dataset(
            PREFIX + known.name,
            partial(load, known),
            hints=known.hints,
            download=partial(download, known),
            license=known.license,
            description=known.description,
        )
        for known in TABLE
    ]


def load(known: KnownDataset, root: Path | None) -> LabeledImages:
    """Return the images of all splits found under `root`; raise InvalidDatasetError if any are missing."""
    folder = _folder(known, root)
    loaded = {split: _part(known, folder, arguments) for split, arguments in known.parts.items()}
    parts = list(loaded.values())
    groups = None
    if any(part.groups is not None for part in parts):
        groups = [f"{split}/{group}" for split, part in loaded.items() for group in part.groups or part.names()]
    return LabeledImages(
        images=_joined([part.images for part in parts]),
        labels=[int(label) for part in parts for label in part.labels],
        classes=parts[0].classes,
        splits=[split for split, part in loaded.items() for _ in range(len(part.labels))],
        names=[f"{split}/{name}" for split, part in loaded.items() for name in part.names()],
        groups=groups,
        root=folder,
    )


def download(known: KnownDataset, root: Path | None) -> None:
    """Download the files to `root` with torchvision, unless they exist; raise InvalidDatasetError if that fails."""
    folder = _folder(known, root)
    try:
        for arguments in known.parts.values():
            if known.read is None:
                cifar.download(_class(known), folder)
            else:
                _class(known)(str(folder), download=True, **arguments)
    except (OSError, RuntimeError, ValueError) as error:  # no network, a wrong checksum, a full disk
        raise InvalidDatasetError(
            "the dataset could not be downloaded completely",
            given=f"{PREFIX}{known.name} into {folder}: {type(error).__name__}: {error}",
            remedy="try again with a network, or copy the files there and run without --download",
        ) from error


def _part(known: KnownDataset, folder: Path, arguments: Mapping[str, Any]) -> DatasetPart:
    try:
        if known.read is None:
            return cifar.read(_class(known), folder, **arguments)
        return known.read(_class(known)(str(folder), download=False, **arguments))
    except AutomlError:
        raise
    except Exception as error:  # a dozen formats, whose readers raise different types
        raise InvalidDatasetError(
            "the dataset's files are missing or damaged",
            given=f"{PREFIX}{known.name} in {folder}: {type(error).__name__}: {error}",
            remedy="check --root, or download them with --download",
        ) from error


def _class(known: KnownDataset) -> Any:
    from torchvision import datasets

    return getattr(datasets, known.name)


def _folder(known: KnownDataset, root: Path | None) -> Path:
    if root is None:
        raise InvalidDatasetError(
            "--root is missing, the folder of the dataset's files",
            given=f"{PREFIX}{known.name} without --root",
            remedy="give the folder with --root; with --download the files are downloaded to it",
        )
    return root


def _joined(parts: Sequence[Sequence[Any]]) -> Sequence[Any]:
    return parts[0] if len(parts) == 1 else _Chain(parts)


class _Chain(Sequence[Any]):
    """A concatenation of sequences that keeps their items lazy."""

    def __init__(self, parts: Sequence[Sequence[Any]]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        for part in self.parts:
            if position < len(part):
                return part[position]
            position -= len(part)
        raise IndexError(index)
