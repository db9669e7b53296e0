"""Assigns each image to a split: as the data state, else seeded, stratified or grouped; frozen as a manifest."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.seeds import derive_seed
from automl_pt.core.text import few, printable
from automl_pt.data.carried_split import extended
from automl_pt.data.manifest import Entry, LeftOut, Manifest, by_name
from automl_pt.dataset import LabeledImages, Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Entry", "LeftOut", "Manifest", "assign", "freeze"]

#: limit of folds for a grouped split, enough for a share of a few per cent
MAX_FOLDS = 20


class Shares(TypedDict):
    """The settings of a drawn split."""

    val_fraction: float
    test_fraction: float
    seed: int


def freeze(
    data: LabeledImages,
    digests: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    source: str,
    earlier: Manifest | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> Manifest:
    """Assign every image to a split; `digests` are their sha256 in `data`'s order, "" for a file that cannot be read.

    The order of the images in `data` has no influence. Classes that occur in the test split only are removed with their
    images, because a search must not depend on that split. Images that the manifest `earlier` knows keep its split;
    `tell` receives notes where that is impossible. Raises InvalidDatasetError if two images have the same name,
    or if no split has every class on both sides.
    """
    names = names_of(data)
    order = sorted(range(len(names)), key=lambda index: by_name(names[index]))
    _require_unique(names)
    shares: Shares = {"val_fraction": val_fraction, "test_fraction": test_fraction, "seed": seed}
    if earlier is None:
        splits = assign(data, names, **shares)
    else:
        splits, notes = extended(data, names, digests, earlier, **shares)
        for note in notes:
            tell(note)
    titles = [data.classes[label] for label in data.labels]
    tested_only = set(titles) - {title for title, split in zip(titles, splits, strict=True) if split != "test"}
    classes = tuple(sorted(set(data.classes) - tested_only))
    index_of = {title: index for index, title in enumerate(classes)}
    entries = [
        Entry(names[index], digests[index], index_of[titles[index]], splits[index])
        for index in order
        if titles[index] in index_of
    ]
    reason = "its class has images in the test split only"
    unknown = [LeftOut(names[index], reason) for index in order if titles[index] not in index_of]
    found = [LeftOut(name, reason) for name, reason in data.left_out]
    left_out = sorted([*found, *unknown], key=lambda item: by_name(item.name))
    return Manifest(tuple(entries), classes, source, seed, tuple(left_out))


def names_of(data: LabeledImages) -> list[str]:
    """Return each image's stable name: as given, else its path below the data's root, else its index."""
    if data.names is not None:
        return list(data.names)
    root = data.root
    if root is None:
        return [f"{index:09}" for index in range(len(data))]
    return [path.relative_to(root).as_posix() for path in data.images]  # type: ignore[union-attr]  # a root means paths


def assign(
    data: LabeledImages, names: Sequence[str], *, val_fraction: float, test_fraction: float, seed: int
) -> list[Split]:
    """Return each image's split. Given splits are kept; missing ones are drawn from the rest.

    Without a given test split, `test_fraction` of all images becomes one; then, without a given validation split,
    `val_fraction` of the rest. Each class's share is drawn from that class alone, so that it is exact within one image
    and independent of other classes' images.
    """
    given: list[Split | None] = list(data.splits) if data.splits is not None else [None] * len(data)
    splits: list[Split | None] = list(given)
    for split, fraction in (("test", test_fraction), ("val", val_fraction)):
        free = [index for index, own in enumerate(splits) if own in (None, "train")]
        if split in given or not fraction or not free:
            continue
        for index in draw(data, names, free, fraction, derive_seed(seed, "split", split)):
            splits[index] = split  # type: ignore[call-overload]  # one of the two literals above
    return [split or "train" for split in splits]


def draw(data: LabeledImages, names: Sequence[str], free: list[int], fraction: float, seed: int) -> list[int]:
    """Return the indices, among `free`, of a stratified share of the images, or of whole groups of them."""
    free = sorted(free, key=lambda index: by_name(names[index]))
    titles = [data.classes[data.labels[index]] for index in free]
    if data.groups is None:
        picked = _draw_by_class(titles, fraction, seed)
    else:
        picked = _draw_groups(titles, [data.groups[index] for index in free], fraction, seed)
    return [free[position] for position in picked]


def _draw_by_class(titles: Sequence[str], fraction: float, seed: int) -> list[int]:
    """Shuffle each class separately and take its first images, like train_test_split of scikit-learn."""
    counts = Counter(titles)
    _refuse_small({title for title, count in counts.items() if count < 2}, "images", fraction)
    picked: list[int] = []
    for title in sorted(counts):
        members = [position for position, other in enumerate(titles) if other == title]
        size = min(max(round(fraction * len(members)), 1), len(members) - 1)
        shuffled = np.random.RandomState(derive_seed(seed, title) % 2**32).permutation(members)
        picked += shuffled[:size].tolist()
    return picked


def _draw_groups(titles: Sequence[str], groups: Sequence[str], fraction: float, seed: int) -> list[int]:
    """Take some folds of StratifiedGroupKFold, with the number of folds that comes nearest to the fraction."""
    labels, members = (np.unique(np.asarray(values, dtype=str), return_inverse=True)[1] for values in (titles, groups))
    pairs = set(zip(titles, groups, strict=True))
    per_class = Counter(title for title, _ in pairs)
    _refuse_small({title for title, count in per_class.items() if count < 2}, "groups", fraction)
    for folds, taken in _fold_counts(fraction, min(MAX_FOLDS, len(set(groups)), int(np.bincount(labels).max()))):
        picked = _folds(labels, members, folds, seed)[:taken]
        chosen = np.sort(np.concatenate(picked))
        inside = np.bincount(labels[chosen], minlength=len(per_class))
        if (inside > 0).all() and (inside < np.bincount(labels)).all():
            return [int(position) for position in chosen]
    raise InvalidDatasetError(
        "no grouped split has every class on both sides and no group on two",
        given=f"{len(set(groups))} groups of {len(per_class)} classes",
        remedy="use smaller groups, or provide your own split",
    )


def _fold_counts(fraction: float, most: int) -> list[tuple[int, int]]:
    """Return pairs (number of folds, folds taken), nearest to the fraction first, then fewest folds."""
    pairs = [(folds, min(max(round(fraction * folds), 1), folds - 1)) for folds in range(2, most + 1)]
    return sorted(pairs, key=lambda pair: (round(abs(pair[1] / pair[0] - fraction), 2), pair[0]))


def _folds(labels: NDArray[np.int64], groups: NDArray[np.int64], count: int, seed: int) -> list[NDArray[np.int64]]:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes with fewer members than folds; the caller checks
        return [chosen for _, chosen in splitter.split(labels, labels, groups)]


def _refuse_small(classes: set[str], what: str, fraction: float) -> None:
    if classes:
        raise InvalidDatasetError(
            f"some classes have fewer than two {what}, so they cannot be split",
            given=f"one only in {few(sorted(classes))} (split off: {fraction:g} of the images)",
            remedy="add images of that class, remove it, or provide your own split",
        )


def _require_unique(names: Sequence[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InvalidDatasetError(
            "two images have the same name",
            given=f"more than one image called {few(twice)}",
            remedy="list each file once, or give the images names that differ",
        )


def require_classes(manifest: Manifest) -> None:
    """Raise InvalidDatasetError unless there are at least two classes, each with images in training and validation."""
    present: Mapping[str, set[str]] = {
        split: {manifest.classes[entry.label] for entry in manifest.entries if entry.split == split}
        for split in ("train", "val")
    }
    nowhere = set(manifest.classes) - present["train"] - present["val"]
    if nowhere:
        raise InvalidDatasetError(
            "a class has no readable image",
            given=f"none in {few(sorted(nowhere))}{_why(manifest, nowhere)}",
            remedy="add readable images to the class, or remove it",
        )
    if len(manifest.classes) < 2:
        raise InvalidDatasetError(
            "there are fewer than two classes",
            given=few(manifest.classes) if manifest.classes else "no labelled image",
            remedy="check the folder's layout: one folder of images per class",
        )
    missing = {split: sorted(set(manifest.classes) - found) for split, found in present.items()}
    if any(missing.values()):
        given = [f"{split} has no image of {few(classes)}" for split, classes in missing.items() if classes]
        raise InvalidDatasetError(
            "training and validation have different classes",
            given="; ".join(given),
            remedy="add images of those classes to that split, or remove the classes from the other",
        )


def _why(manifest: Manifest, classes: set[str]) -> str:
    """List the skipped files whose path says that they belong to one of `classes`."""
    lost = [item for item in manifest.left_out if classes & set(item.name.split("/"))]
    return f" (skipped: {few(f'{item.name}: {printable(item.reason)}' for item in lost)})" if lost else ""
