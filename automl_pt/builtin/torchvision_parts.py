"""Reads images, labels and classes from torchvision's dataset objects, with one function per way of storing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_pt.core.errors import InvalidDatasetError


@dataclass(frozen=True)
class DatasetPart:
    """One split of a set: paths, or arrays uint8 [H, W] or [H, W, 3]; labels; class names; groups if there are any."""

    images: Sequence[Any]
    labels: Sequence[int]
    classes: Sequence[str]
    groups: Sequence[str] | None = None

    def names(self) -> list[str]:
        """Name images by their number, because the order of the published files is the same everywhere."""
        return [f"{index:06}" for index in range(len(self.labels))]


def arrays(dataset: Any) -> DatasetPart:
    """Read sets of MNIST's format: `data` uint8[N, H, W] and `targets`."""
    return DatasetPart(dataset.data.numpy(), dataset.targets.tolist(), list(dataset.classes))


def emnist(dataset: Any) -> DatasetPart:
    """Read EMNIST, whose published images have rows and columns swapped."""
    return DatasetPart(dataset.data.transpose(1, 2).numpy(), dataset.targets.tolist(), list(dataset.classes))


def svhn(dataset: Any) -> DatasetPart:
    """Read SVHN: `data` uint8[N, 3, H, W], digits as labels."""
    return DatasetPart(dataset.data.transpose(0, 2, 3, 1), dataset.labels.tolist(), [str(digit) for digit in range(10)])


def stl10(dataset: Any) -> DatasetPart:
    """Read STL-10: `data` uint8[N, 3, H, W]."""
    return DatasetPart(dataset.data.transpose(0, 2, 3, 1), dataset.labels.tolist(), list(dataset.classes))


def annotated_files(dataset: Any) -> DatasetPart:
    """Read sets of image files with separate lists of labels."""
    # torchvision has no public name for either; the tests read a small set of each kind
    files = getattr(dataset, "_image_files", None) or dataset._images
    return DatasetPart([Path(file) for file in files], list(dataset._labels), list(dataset.classes))


def samples(dataset: Any) -> DatasetPart:
    """Read sets of class folders: `samples` are pairs of path and label."""
    pairs = getattr(dataset, "samples", None) or dataset._samples
    # Imagenette gives each class a tuple of synonyms
    classes = [name if isinstance(name, str) else name[0] for name in dataset.classes]
    return DatasetPart([Path(path) for path, _ in pairs], [label for _, label in pairs], classes)


def gtsrb(dataset: Any) -> DatasetPart:
    """Read GTSRB: PPM files; the 30 photos of one track in the training part form a group."""
    pairs = dataset._samples
    paths = [Path(path) for path, _ in pairs]
    # training files are called TRACK_FRAME.ppm within a class folder, test files by a number only
    groups = [f"{label}/{path.stem.partition('_')[0]}" for path, (_, label) in zip(paths, pairs, strict=True)]
    return DatasetPart(PpmFiles(paths), [label for _, label in pairs], [f"{label:02}" for label in range(43)], groups)


class PpmFiles(Sequence[Any]):
    """PPM files, each read on access, as uint8 [H, W, 3], because the general decoder does not allow PPM."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        import numpy as np
        from PIL import Image

        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        path = self.paths[index]
        try:
            with Image.open(path, formats=("PPM",)) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise InvalidDatasetError(
                "an image is unreadable",
                given=f"{path}: {error}",
                remedy="download the dataset again with --download, into an empty folder",
            ) from error
