"""Checks the contract of a dataset on its labels and on a sample of its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automl_pt.core.errors import AutomlError
from automl_pt.data.loader import Loader
from automl_pt.data.pixels import Pixels
from automl_pt.dataset import SPLITS, Dataset, Hints, LabeledImages
from automl_pt.images.decode import decode
from automl_pt.testing.contract import expect

#: images that are decoded, spread evenly over the dataset
SAMPLE = 64
#: side in pixels they are decoded to
SIDE = 16

_LOAD = "the function given as Dataset(load=...)"


@dataclass(frozen=True)
class DatasetCase:
    """A dataset under test, loaded twice."""

    dataset: Dataset
    data: LabeledImages
    again: LabeledImages

    def sample(self) -> NDArray[np.int64]:
        """Return the indices of the images to decode."""
        count = len(self.data)
        return np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64))


def check_dataset(dataset: Dataset | str, *, root: Path | None = None) -> None:
    """Raise PluginError for the first rule of the contract that `dataset`, or the one of that name, violates.

    `root` is the folder of its files, as given by --root.
    """
    if isinstance(dataset, str):
        from automl_pt.plugins.manager import load_plugins

        dataset = load_plugins().dataset(dataset)
    case = DatasetCase(dataset, _loaded(dataset, root), _loaded(dataset, root))
    for check in CHECKS:
        check(case)


def check_lengths(case: DatasetCase) -> None:
    """Check that there are images, with one label, split, name and group each."""
    data = case.data
    lengths = {"images": len(data.images), "labels": len(data.labels)}
    for name in ("splits", "names", "groups"):
        values = getattr(data, name)
        if values is not None:
            lengths[name] = len(values)
    same = len(set(lengths.values())) == 1 and lengths["images"] > 0
    expect(same, "as many labels, splits, names and groups as images, at least one", came=str(lengths), look=_LOAD)


def check_classes(case: DatasetCase) -> None:
    """Check that there are at least two classes, with different names."""
    classes = list(case.data.classes)
    right = len(classes) > 1 and all(isinstance(name, str) and name for name in classes)
    expect(right, "two classes or more, each with a name", came=repr(classes[:5]), look="LabeledImages(classes=...)")
    twice = sorted(name for name, count in Counter(classes).items() if count > 1)
    expect(not twice, "class names differ", came=f"twice: {twice[:5]}", look="LabeledImages(classes=...)")


def check_labels(case: DatasetCase) -> None:
    """Check that labels are integers into the classes, and that every class has an image."""
    look = "LabeledImages(labels=..., classes=...): labels count classes from 0"
    labels = np.asarray(case.data.labels)
    right = np.issubdtype(labels.dtype, np.integer) and labels.ndim == 1
    expect(right, "labels are integers", came=f"{labels.dtype}, {labels.ndim} dimensions", look=look)
    classes = list(case.data.classes)
    span = f"{labels.min()} to {labels.max()}"
    expect(
        labels.min() >= 0 and labels.max() < len(classes),
        f"labels lie in 0 to {len(classes) - 1}",
        came=span,
        look=look,
    )
    empty = [classes[label] for label in sorted(set(range(len(classes))) - set(labels.tolist()))]
    expect(not empty, "every class has an image", came=f"none of {empty[:5]}", look=look)


def check_splits(case: DatasetCase) -> None:
    """Check that splits are known, complete, and disjoint in names and groups."""
    splits = case.data.splits
    if splits is None:
        return
    look = "LabeledImages(splits=...)"
    unknown = sorted({str(split) for split in splits if split is not None and split not in SPLITS})
    expect(not unknown, f"a split is one of {', '.join(SPLITS)}, or None", came=repr(unknown[:5]), look=look)
    expect("train" in splits or None in splits, "some images are for training", came=f"{set(splits)}", look=look)
    for what in ("names", "groups"):
        homes: dict[str, set[str]] = {}
        for value, split in zip(getattr(case.data, what) or (), splits, strict=False):
            homes.setdefault(value, set()).add(str(split))
        torn = sorted(value for value, found in homes.items() if len(found) > 1)
        expect(not torn, f"splits share no {what}", came=f"in several: {torn[:5]}", look=f"{look} and {what}=...")


def check_names(case: DatasetCase) -> None:
    """Check that names, if given, are unique."""
    names = list(case.data.names or ())
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    expect(not twice, "names are unique", came=f"twice: {twice[:5]}", look="LabeledImages(names=...)")


def check_order(case: DatasetCase) -> None:
    """Check that loading twice gives the same images, labels, splits and names in the same order."""
    look = f"a listing without sorted(), or random numbers without a fixed seed, in {_LOAD}"
    for name in ("classes", "labels", "splits", "names", "groups"):
        first, second = getattr(case.data, name), getattr(case.again, name)
        same = list(() if first is None else first) == list(() if second is None else second)
        expect(same, f"loading twice gives the same {name} in the same order", came="they differ", look=look)
    for index in case.sample():
        same = _same(case.data.images[index], case.again.images[index])
        expect(same, "loading twice gives the same images", came=f"image {index} differs", look=look)


def check_images(case: DatasetCase) -> None:
    """Check that images are readable paths or uint8 arrays that become RGB."""
    for index in case.sample():
        image: Any = case.data.images[index]
        right = isinstance(image, Path) or (isinstance(image, np.ndarray) and image.dtype == np.uint8)
        kind = f"{type(image).__name__} {getattr(image, 'dtype', '')}".strip()
        came = f"image {index}: {kind}"
        expect(right, "an image is a Path or a uint8 array [H, W] or [H, W, 3]", came=came, look=_LOAD)
        try:
            pixels = decode(image, SIDE)
        except AutomlError as error:
            came = f"image {index}: {error.given}"
            expect(False, f"images are readable: {error.rule}", came=came, look=_LOAD)
        right = pixels.shape == (3, SIDE, SIDE) and pixels.dtype == np.uint8
        expect(right, "an image becomes RGB", came=f"image {index}: {pixels.dtype} {pixels.shape}", look=_LOAD)


def check_hints(case: DatasetCase) -> None:
    """Check the types of hints, that the images do not contradict them, and that batches respect them."""
    hints = case.dataset.hints
    right = hints.image_size is None or (isinstance(hints.image_size, int) and hints.image_size > 0)
    look = "Dataset(hints=Hints(image_size=...))"
    expect(right, "the hinted image size is above 0", came=f"{hints.image_size}", look=look)
    for name in ("horizontal_flip", "shift"):
        value = getattr(hints, name)
        came = f"{name}={value!r}"
        expect(isinstance(value, bool), "hints are True or False", came=came, look=f"Dataset(hints=Hints({name}=...))")
    sample = case.sample()
    pixels = np.stack([decode(case.data.images[index], SIDE) for index in sample])
    labels = np.asarray(case.data.labels)[sample]
    if hints.horizontal_flip:
        _check_mirrored(pixels, labels, sample)
    _check_batches(hints, pixels, labels)


def _check_mirrored(pixels: NDArray[np.uint8], labels: NDArray[np.int64], sample: NDArray[np.int64]) -> None:
    """Find an image that, mirrored, is an image of another class, because mirroring would then teach a wrong label."""
    seen = {image.tobytes(): place for place, image in enumerate(pixels)}
    for place, image in enumerate(pixels):
        twin = seen.get(np.ascontiguousarray(image[:, :, ::-1]).tobytes(), place)
        came = f"image {sample[place]} mirrored is image {sample[twin]}, of another class"
        expect(
            labels[twin] == labels[place],
            "a mirrored image belongs to its class, if hints allow mirroring",
            came=came,
            look="Dataset(hints=Hints(horizontal_flip=False))",
        )


def _check_batches(hints: Hints, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Pass the images through the training loader, which must not augment them in ways that hints forbid."""
    loader = Loader(
        Pixels(pixels, labels, ()),
        batch_size=len(labels),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        seed=1,
        device=torch.device("cpu"),
        hints=hints,
        augmented_epochs=3,
        shuffle=False,
    )
    plans = [loader.plan(epoch) for epoch in (1, 2, 3)]
    done = {
        "horizontal_flip": any(plan.flips.any() for plan in plans),
        "shift": any(plan.shifts.any() for plan in plans),
    }
    wrong = [name for name, was in done.items() if was and not getattr(hints, name)]
    expect(not wrong, "augmentation follows the hints", came=f"{wrong} was done", look="automl_pt/data/augmentation.py")
    if not any(done.values()):
        images = torch.cat([images for images, _ in loader.epoch(1)])
        same = torch.equal((images * 255).round().to(torch.uint8), torch.from_numpy(pixels))
        expect(
            same, "augmentation follows the hints", came="images were changed", look="automl_pt/data/augmentation.py"
        )


def _loaded(dataset: Dataset, root: Path | None) -> LabeledImages:
    try:
        data: object = dataset.load(root)
    except AutomlError:
        raise
    except Exception as error:
        came = f"{dataset.name}: {type(error).__name__}: {error}"
        expect(False, "load(root) returns labelled images", came=came, look=_LOAD)
    right = isinstance(data, LabeledImages)
    expect(right, "load(root) returns LabeledImages", came=f"{dataset.name}: {type(data).__name__}", look=_LOAD)
    assert isinstance(data, LabeledImages)
    return data


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    return bool(first == second)


CHECKS: tuple[Callable[[DatasetCase], None], ...] = (
    check_lengths,
    check_classes,
    check_labels,
    check_splits,
    check_names,
    check_order,
    check_images,
    check_hints,
)
