"""Splits images of which an earlier study knows some: those keep their split, and shares of the new ones are drawn.

Images with the same content, or of one group, are one unit, which is in one split. A unit that holds an image of
the earlier test split stays in the test split as a whole, so that no later study trains on such an image.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from unicodedata import normalize

import numpy as np

from automl_pt.core.seeds import derive_seed
from automl_pt.core.text import counted, few
from automl_pt.data.manifest import Manifest
from automl_pt.dataset import LabeledImages, Split

#: of a unit with images of several splits, the first of these counts
PRECEDENCE: tuple[Split, ...] = ("test", "val", "train")


def extended(
    data: LabeledImages,
    names: Sequence[str],
    digests: Sequence[str],
    earlier: Manifest,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> tuple[list[Split], list[str]]:
    """Return each image's split, and notes where the earlier one could not be kept.

    A split that the data state is kept as it is. Of the units that the earlier study does not know, `test_fraction` and
    then `val_fraction` are drawn for each class.
    """
    given = list(data.splits) if data.splits is not None else [None] * len(data)
    known = _known(names, digests, earlier)
    splits: list[Split | None] = list(given)
    new, lost, mixed = list[list[int]](), list[str](), list[str]()
    for unit in units(names, digests, data.groups):
        found = {known[index] for index in unit if index in known}
        free = [index for index in unit if given[index] in (None, "train")]
        if not found:
            new += [free] if free else []
            continue
        kept = next(split for split in PRECEDENCE if split in found)
        stated = kept != "train" and kept in given
        for index in free:
            splits[index] = "train" if stated else kept
        lost += [names[index] for index in free if stated]
        mixed += [names[index] for index in unit if not stated and known.get(index, kept) != kept]
    titles = [data.classes[label] for label in data.labels]
    for split, fraction in (("test", test_fraction), ("val", val_fraction)):
        if split in given or not fraction:
            continue
        taken = _draw(new, titles, splits, split, fraction, derive_seed(seed, "added", split))
        for index in (index for place in taken for index in new[place]):
            splits[index] = split  # type: ignore[call-overload]  # one of the two literals above
        new = [unit for place, unit in enumerate(new) if place not in taken]
    return [split or "train" for split in splits], _notes(lost, mixed)


def _notes(lost: Sequence[str], mixed: Sequence[str]) -> list[str]:
    said = []
    if lost:
        said.append(
            f"{counted(len(lost), 'image')} of the earlier study's test or validation split: training images now, "
            f"because the data state so: {few(lost)}"
        )
    if mixed:
        said.append(
            f"{counted(len(mixed), 'image')} in another split than in the earlier study, because images of the same "
            f"content or group were in its test or validation split: {few(mixed)}"
        )
    return said


def _known(names: Sequence[str], digests: Sequence[str], earlier: Manifest) -> dict[int, Split]:
    """Return the earlier split of each image, found by its content, else by its name."""
    contents, by_name = dict[str, Split](), dict[str, Split]()
    for entry in sorted(earlier.entries, key=lambda entry: -PRECEDENCE.index(entry.split)):
        contents[entry.sha256] = entry.split
        by_name[normalize("NFC", entry.name)] = entry.split
    contents.pop("", None)
    found: dict[int, Split] = {}
    for index, (name, digest) in enumerate(zip(names, digests, strict=True)):
        split = contents.get(digest) or by_name.get(normalize("NFC", name))
        if split is not None:
            found[index] = split
    return found


def units(names: Sequence[str], digests: Sequence[str], groups: Sequence[str] | None) -> list[list[int]]:
    """Return the positions of images that belong together, by content or group, in the order of their first names."""
    parent = list(range(len(names)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    keys: list[Iterable[tuple[str, str]]] = [(("content", digest),) if digest else () for digest in digests]
    if groups is not None:
        keys = [(*own, ("group", str(group))) for own, group in zip(keys, groups, strict=True)]
    first: dict[tuple[str, str], int] = {}
    for index, own in enumerate(keys):
        for key in own:
            parent[root(index)] = root(first.setdefault(key, index))
    units = defaultdict[int, list[int]](list)
    for index in sorted(range(len(names)), key=lambda index: (normalize("NFC", names[index]), names[index])):
        units[root(index)].append(index)
    return list(units.values())


def _draw(
    units: Sequence[list[int]],
    titles: Sequence[str],
    splits: Sequence[Split | None],
    split: str,
    fraction: float,
    seed: int,
) -> set[int]:
    """Choose shuffled units, by their places, while they bring each class nearer to its share.

    A class that the split lacks gets at least one unit, where it has several.
    """
    images = Counter(titles[index] for unit in units for index in unit)
    there = {titles[index] for index, own in enumerate(splits) if own == split}
    missing = {title: _share(count, fraction, is_new=title not in there) for title, count in images.items()}
    order: list[int] = np.random.RandomState(seed % 2**32).permutation(len(units)).tolist()
    taken = set[int]()
    for place in order:
        counts = Counter(titles[index] for index in units[place])
        if sum(count * (count - 2 * missing[title]) for title, count in counts.items()) < 0:
            taken.add(place)
            missing = {title: count - counts.get(title, 0) for title, count in missing.items()}
    for title in sorted(images.keys() - there):
        holding = [place for place in order if any(titles[index] == title for index in units[place])]
        if len(holding) > 1 and taken.isdisjoint(holding):
            taken.add(min(holding, key=lambda place: len(units[place])))
    return taken


def _share(count: int, fraction: float, *, is_new: bool) -> int:
    if not is_new:
        return round(fraction * count)
    return min(max(round(fraction * count), 1), count - 1)


def unseen(manifest: Manifest, earlier: Manifest, names: Sequence[str]) -> list[bool]:
    """Return of each of a manifest's images whether the earlier study did not train on it, by content or name."""
    trained = {entry.sha256 for entry in earlier.entries if entry.split == "train"}
    called = {normalize("NFC", entry.name) for entry in earlier.entries if entry.split == "train"}
    contents: Mapping[str, str] = {entry.name: entry.sha256 for entry in manifest.entries}
    return [contents[name] not in trained and normalize("NFC", name) not in called for name in names]
