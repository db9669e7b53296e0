"""The fast part of the check: class names, counts, ignored files and empty files, without decoding."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from automl_pt.check.findings import Finding, Item, finding
from automl_pt.dataset import LabeledImages
from automl_pt.images.read import UnreadableImage
from automl_pt.layouts.class_names import as_read
from automl_pt.layouts.left_out import HIDDEN, NO_CLASS

#: invisible characters and those that turn the writing direction
_UNSEEN = ("Cc", "Cf")


def quick_check(data: LabeledImages, *, val_fraction: float = 0.2) -> list[Finding]:
    """Find everything that needs no decoding, with one `stat` per file."""
    return [
        *finding("one class", [] if len(data.classes) > 1 else [Item(tuple(data.classes), "the only class")]),
        *finding("twin classes", list(_twins(data.classes))),
        *finding("odd name", [Item((name,)) for name in data.classes if _plain(name) != name]),
        *_class_sizes(data),
        *_left_out(data.left_out),
        *finding("empty", list(_empty(data))),
    ]


def are_files(data: LabeledImages) -> bool:
    """Return whether the images are files, not pixels; False if the first image cannot be accessed."""
    try:
        return len(data) > 0 and isinstance(data.images[0], Path)
    except UnreadableImage:
        return False


def name_of(data: LabeledImages, index: int) -> str:
    """Return an image's name in messages: its name, else its path, else its index."""
    if data.names is not None:
        return data.names[index]
    return f"image {index}" if data.root is None else str(data.images[index])


def _twins(classes: Sequence[str]) -> Iterator[Item]:
    """Yield classes that a person, or another file system, considers equal."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        plain = " ".join(_plain(unicodedata.normalize("NFKC", name)).casefold().split())
        alike[as_read(plain)].append(name)
    for names in alike.values():
        if len(names) > 1:
            yield Item(tuple(names), ", ".join(ascii(name) for name in names))


def _plain(name: str) -> str:
    return "".join(character for character in name if unicodedata.category(character) not in _UNSEEN)


def _class_sizes(data: LabeledImages) -> list[Finding]:
    counts: dict[str, Counter[str]] = {name: Counter() for name in data.classes}
    for index, label in enumerate(data.labels):
        split = data.splits[index] if data.splits is not None else None
        counts[data.classes[label]][split or "unsplit"] += 1
    present = {split for count in counts.values() for split in count}
    if "val" not in present:
        small = [Item((name,), f"{n} image") for name, c in counts.items() if (n := c["train"] + c["unsplit"]) == 1]
        return finding("small class", small)
    missing = [
        Item((name,), f"{count['train'] + count['unsplit']} in training, {count['val']} in validation")
        for name, count in counts.items()
        if bool(count["train"] + count["unsplit"]) != bool(count["val"])
    ]
    return finding("missing class", missing)


def _left_out(left_out: Sequence[tuple[str, str]]) -> list[Finding]:
    by_kind: dict[str, list[Item]] = defaultdict(list)
    for name, reason in left_out:
        by_kind[_kind(reason)].append(Item((name,), reason))
    return [found for kind in sorted(by_kind) for found in finding(kind, by_kind[kind])]


def _kind(reason: str) -> str:
    if reason == HIDDEN:
        return "hidden"
    if reason == NO_CLASS:
        return "outside"
    if "link" in reason:
        return "link"
    return "repeated" if "repeats" in reason else "other file"


def _empty(data: LabeledImages) -> Iterator[Item]:
    if not are_files(data):
        return
    for index, path in enumerate(data.images):
        assert isinstance(path, Path), "all images are paths if the first is"
        try:
            if path.stat().st_size == 0:
                yield Item((name_of(data, index),))
        except OSError:
            continue  # the full decode reports the fault
