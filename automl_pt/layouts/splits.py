"""Distinguishes split folders from class folders by their names and content; refuses ambiguous folders."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import few, printable
from automl_pt.dataset import Split
from automl_pt.layouts.scan import Scan
from automl_pt.layouts.split_words import GENERIC, Kind, certain, resolved, together


@dataclass(frozen=True)
class Layout:
    """The position of class and split in an image's name."""

    #: the position of the class folder in names with this first folder; `place` for all others
    places: dict[str, int] = field(default_factory=dict)
    place: int = 0
    #: the split of each folder at `split_place`; empty if the folders are classes
    splits: dict[str, Split] = field(default_factory=dict)
    split_place: int = 0

    def class_place(self, parts: Sequence[str]) -> int:
        """Return the position of the class folder in a name, whether it exists or not."""
        return self.places.get(parts[0], self.place)

    def split(self, parts: Sequence[str]) -> Split:
        """Return the split of an image; only valid if there are splits."""
        return self.splits[parts[self.split_place]]


@dataclass(frozen=True)
class Folders:
    """The top folders with their content: the number of images directly in each, and in each folder below."""

    direct: Counter[str]
    within: dict[str, Counter[str]]

    @property
    def tops(self) -> list[str]:
        """Return the names of all folders that hold images at any depth."""
        return sorted({*self.direct, *self.within})

    def shared(self, one: str, others: Sequence[str]) -> list[str]:
        """Return the names of folders that occur in `one` and in any of `others`."""
        return sorted({name for other in others for name in self.within.get(other, ())} & set(self.within.get(one, ())))


def folders_of(parts: Sequence[Sequence[str]]) -> Folders:
    """Count the images of each top folder, and of each folder in it."""
    direct: Counter[str] = Counter()
    within: dict[str, Counter[str]] = defaultdict(Counter)
    for own in parts:
        if len(own) == 2:
            direct[own[0]] += 1
        elif len(own) > 2:
            within[own[0]][own[1]] += 1
    return Folders(direct, dict(within))


def find_layout(found: Scan, parts: Sequence[Sequence[str]]) -> Layout:
    """Return the positions of classes and splits; `parts` are the images' names split at slashes.

    Raises InvalidDatasetError if the folders could be splits as well as classes.
    """
    folders = folders_of(parts)
    kinds = together(folders.tops)
    _refuse_folds(found, folders, kinds)
    others = [top for top in folders.tops if top not in kinds]
    deep: set[Kind] = {kind for top, kind in kinds.items() if top in folders.within and kind != "unlabelled"}
    if deep and not others:
        return _of_splits(found, parts, folders, kinds)
    if _are_doubtful(folders, kinds, others, deep):
        _refuse(found, [top for top in folders.tops if top in kinds], others)
    return _splits_in_classes(found, folders) or Layout()


def _are_doubtful(folders: Folders, kinds: dict[str, Kind], others: list[str], deep: set[Kind]) -> bool:
    """Return whether folders named like splits stand beside others, so that they may be splits or classes."""
    if not others:
        return False
    if len(deep) > 1 or ("train" in kinds.values() and len(set(kinds.values())) > 1):
        return True
    for top in kinds:
        within = folders.within.get(top, Counter())
        if folders.shared(top, others) or (kinds[top] == "train" and len(within) > 1 and not folders.direct[top]):
            return True
    return False


def _of_splits(found: Scan, parts: Sequence[Sequence[str]], folders: Folders, kinds: dict[str, Kind]) -> Layout:
    """Return the layout of folders that are all splits; splits without class folders may be unlabelled."""
    wrapped = {top: 2 for top in kinds if _is_wrapped(top, folders, kinds)}
    labelled = {own[0] for own in parts if len(own) > wrapped.get(own[0], 1) + 1}
    where = printable(found.root)
    splits = resolved({top: kind for top, kind in kinds.items() if top in labelled}, where)
    if not labelled:
        return Layout(wrapped, 1)
    if sorted_out := sorted(top for top in labelled if kinds[top] == "unlabelled"):
        raise InvalidDatasetError(
            "a folder of images to predict contains class folders, whose images belong to a split",
            given=f"{where}: class folders in {few(sorted_out)}",
            remedy="rename the folder to train, val or test, or move it away",
        )
    if "train" not in splits.values() and "train" not in kinds.values():
        raise InvalidDatasetError(
            "the folder has splits but no train folder",
            given=f"{where}: {few(folders.tops)}",
            remedy="add it, or give one of these folders alone",
        )
    for split, count in Counter([*splits.values(), *(k for t, k in kinds.items() if t not in splits)]).items():
        same = [top for top in folders.tops if splits.get(top, kinds.get(top)) == split]
        if count > 1 and split in ("train", "val", "test") and any(top in splits for top in same):
            raise InvalidDatasetError(
                "two folders have the same split",
                given=f"{few(same)} in {where}, each of which is called {split}",
                remedy="move the images of one into the other, or move one away",
            )
    return Layout(wrapped, 1, splits)


def _is_wrapped(top: str, folders: Folders, kinds: dict[str, Kind]) -> bool:
    """Return whether all of a split lies in one folder that is no class: seg_train/seg_train/cat, train/images/cat."""
    within = folders.within.get(top, Counter())
    if len(within) != 1 or folders.direct[top]:
        return False
    name = next(iter(within))
    again = name.casefold() == top.casefold() or (certain(name) is not None and certain(name) == certain(top))
    elsewhere = [other for other in kinds if other != top and len(folders.within.get(other, ())) > 1]
    return again or (name.casefold() in GENERIC and not folders.shared(top, elsewhere))


def _splits_in_classes(found: Scan, folders: Folders) -> Layout | None:
    """Return the layout if each class folder contains split folders, cat/train/1.jpg; None otherwise."""
    names = sorted({name for within in folders.within.values() for name in within})
    kinds = together(names)
    if "train" not in kinds.values() or len({*kinds.values()} - {"unlabelled"}) < 2:
        return None
    if len(kinds) < len(names) or folders.direct or "unlabelled" in kinds.values():
        inside = [f"{top}/{name}" for top in sorted(folders.within) for name in folders.within[top]]
        _refuse(
            found,
            [name for name in inside if name.partition("/")[2] in kinds],
            [*folders.direct, *(name for name in inside if name.partition("/")[2] not in kinds)],
        )
    return Layout(splits=resolved(kinds, printable(found.root)), split_place=1)


def _refuse(found: Scan, splits: Sequence[str], others: Sequence[str]) -> NoReturn:
    raise InvalidDatasetError(
        "the folder holds splits beside classes",
        given=f"{printable(found.root)}: {few(splits)} may be splits, and beside them {few(others)} may be classes",
        remedy="if they are splits, call each train, val or test and move the others away; if they are classes, "
        "rename those that contain train, val or test",
    )


def _refuse_folds(found: Scan, folders: Folders, kinds: dict[str, Kind]) -> None:
    folds = [top for top, kind in kinds.items() if kind == "fold"]
    if len(folds) > 1 or (folds and len(kinds) > 1):
        raise InvalidDatasetError(
            "folders named like folds may be parts for cross-validation or classes",
            given=f"{printable(found.root)}: {few(folders.tops)}",
            remedy="if they are folds, move them into folders called train and val; if they are classes, give them "
            "names without 'fold' or 'split'",
        )


def alike_note(folders: Folders) -> str | None:
    """Note that folders within class folders belong to the class, if they could be the classes instead."""
    names = Counter(name for within in folders.within.values() for name in within)
    twice = [name for name, count in sorted(names.items()) if count > 1]
    if not twice and (folders.direct or len(folders.within) < 2 or len(names) < 2):
        return None
    images = sum(count for within in folders.within.values() for count in within.values())
    advice = f"; if {few(map(repr, folders.tops), 3)} are splits and not classes, call them train and val"
    return (
        f"folders within class folders belong to the class: {images} images in {few(twice or sorted(names), 3)}"
        f"{advice if twice else ''}"
    )
