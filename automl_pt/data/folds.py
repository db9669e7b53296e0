"""Divides training and validation images into folds: stratified by class, with whole groups, and by the seed alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.seeds import derive_seed
from automl_pt.core.text import counted, few
from automl_pt.data.carried_split import units
from automl_pt.data.manifest import Manifest
from automl_pt.data.prepare import Data


def fold_data(data: Data, count: int, number: int, *, probe_c: float | None = None) -> Data:
    """Return the data of fold `number`, from 1: its images are the validation split, those of the others train.

    The test split is unchanged. `probe_c` fixes the penalty of the head that training starts from, so that no image of
    the fold chooses it. Raises InvalidDatasetError if `count` folds cannot be made.
    """
    held_out = set(folds_of(data, count)[number - 1])
    entries = (
        entry if entry.split == "test" else entry._replace(split="val" if entry.name in held_out else "train")
        for entry in data.manifest.entries
    )
    return replace(data, manifest=replace(data.manifest, entries=tuple(entries)), probe_c=probe_c)


def folds_of(data: Data, count: int) -> list[list[str]]:
    """Return the names of the images of each fold.

    Images with the same content, or of one group, are in one fold. Raises InvalidDatasetError if a class has too few
    of these units for every fold to have images of it to train on.
    """
    entries = [entry for entry in data.manifest.entries if entry.split != "test"]
    groups = data.inventory.images.groups
    own = None if groups is None else [groups[data.inventory.index[entry.name]] for entry in entries]
    parts = units([entry.name for entry in entries], [entry.sha256 for entry in entries], own)
    labels = np.array([entry.label for entry in entries])
    unit_of = np.empty(len(entries), np.int64)
    for place, part in enumerate(parts):
        unit_of[part] = place
    _require_enough(data.manifest, labels, unit_of, count, "image" if groups is None else "group")
    chosen = _split(labels, unit_of, count, derive_seed(data.manifest.seed, "folds", count))
    missing = {int(label) for part in chosen for label in set(labels.tolist()) - set(np.delete(labels, part).tolist())}
    if missing:
        raise InvalidDatasetError(
            "all images of a class are in one fold, so that nothing remains to train on",
            given=f"{few(data.manifest.classes[label] for label in sorted(missing))}; {count} folds",
            remedy="ask for other --folds, or make the groups smaller",
        )
    return [[entries[index].name for index in part] for part in chosen]


def _require_enough(
    manifest: Manifest, labels: NDArray[np.int64], unit_of: NDArray[np.int64], count: int, what: str
) -> None:
    pairs = {(int(label), int(unit)) for label, unit in zip(labels, unit_of, strict=True)}
    found = {label: sum(own == label for own, _ in pairs) for label in range(len(manifest.classes))}
    poor = {manifest.classes[label]: number for label, number in found.items() if number < count}
    if poor:
        raise InvalidDatasetError(
            f"a class has too few {what}s for {count} folds",
            given=few(f"{title}: {counted(number, what)}" for title, number in poor.items())
            + " besides those of the test split",
            remedy=f"ask for at most {min(poor.values())} --folds, or add images"
            if min(poor.values()) > 1
            else "add images of that class, or search without --folds",
        )


def _split(labels: NDArray[np.int64], unit_of: NDArray[np.int64], count: int, seed: int) -> Sequence[NDArray[np.int64]]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    whole = len(set(unit_of.tolist())) < len(unit_of)
    kind = StratifiedGroupKFold if whole else StratifiedKFold
    splitter = kind(count, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes with fewer images than folds; the caller checks
        return [part for _, part in splitter.split(labels, labels, unit_of if whole else None)]
