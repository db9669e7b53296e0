"""The kinds of findings of `check`, their severity, and how training handles them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import few, printable

#: stop: training refuses to start; falsify: it runs with wrong figures; note: it handles the case as described
Level = Literal["stop", "falsify", "note"]

_LEAVES_OUT = "stops before the first epoch; with --max-bad it skips and lists them"
#: kind -> level, description, how training handles it
KINDS: dict[str, tuple[Level, str, str]] = {
    "unreadable": ("stop", "files that are not images, or are damaged", _LEAVES_OUT),
    "truncated": ("stop", "images whose end is missing", _LEAVES_OUT),
    "empty": ("stop", "files of zero bytes", _LEAVES_OUT),
    "huge": ("stop", "images beyond the size limit, or decompression bombs", _LEAVES_OUT),
    "one class": ("stop", "fewer than two classes", "refuses, because there is nothing to distinguish"),
    "lost class": ("stop", "classes without a readable image", "refuses"),
    "small class": ("stop", "classes too small to split", "refuses, unless the data bring their own split"),
    "missing class": ("stop", "classes that are missing from training or validation", "refuses"),
    "twin classes": (
        "stop",
        "class names that differ only in case, spaces, invisible or composed characters, or like 1 and 1.0",
        "refuses",
    ),
    "two classes": ("falsify", "one picture in two classes", "learns both labels; one of them is wrong"),
    "copies across": ("falsify", "the same file in two splits", "is measured on images it has memorised"),
    "alike across": ("falsify", "nearly the same picture in two splits", "is measured on nearly memorised images"),
    "copies unsplit": (
        "falsify",
        "the same file more than once, before a split is made",
        "may get one copy for training and another for validation",
    ),
    "alike unsplit": (
        "note",
        "nearly the same picture more than once, before a split is made",
        "may get one for training and one for validation; --group-by or --group-column keeps them together",
    ),
    "copies within": ("note", "the same file more than once within a split", "counts each copy"),
    "complaint": ("note", "JPEG files with damage that the decoder could skip", "uses them as decoded"),
    "wrong ending": ("note", "files whose ending states another format", "uses the format of the content"),
    "animated": ("note", "animations", "uses the first frame"),
    "CMYK": ("note", "images in print colours (CMYK)", "converts them to RGB without a colour profile"),
    "16 bit": ("note", "images with 16 bits a channel", "scales them to 8 bits"),
    "palette": ("note", "images with a palette", "converts the colours"),
    "alpha": ("note", "images with transparent parts", "puts them on white"),
    "rotated": ("note", "photographs with an EXIF rotation", "turns them upright"),
    "odd sizes": ("note", "images of very different size", "resizes all to one side; consider --image-size"),
    "long": ("note", "images more than four times as long as wide", "uses only the centre square"),
    "hidden": ("note", "hidden and system files", "ignores them"),
    "link": ("note", "links that leave the dataset, lead nowhere or repeat a file", "ignores them"),
    "other file": ("note", "files that are not images by their ending", "ignores them"),
    "outside": ("note", "images in no class folder", "ignores them"),
    "repeated": ("note", "rows of the table that repeat an image", "counts the image once"),
    "odd name": ("note", "class names with invisible or reordering characters", "keeps the name"),
    "unchecked": ("note", "comparisons that were not made", "continues"),
}


@dataclass(frozen=True)
class Item:
    """One case of a finding: the names involved (two or more for similar images), and a detail."""

    names: tuple[str, ...]
    detail: str = ""

    def __str__(self) -> str:
        names = " = ".join(printable(name) for name in self.names)
        return f"{names} ({printable(self.detail)})" if self.detail else names


@dataclass(frozen=True)
class Finding:
    """All cases of one kind."""

    kind: str
    items: tuple[Item, ...]
    level: Level
    what: str
    training: str


def finding(kind: str, items: Sequence[Item], *, level: Level | None = None) -> list[Finding]:
    """Return a list with the finding, or an empty list without items; `level` replaces the kind's own level."""
    own, what, training = KINDS[kind]
    return [Finding(kind, tuple(items), level or own, what, training)] if items else []


def refuse(findings: Sequence[Finding]) -> None:
    """Raise one InvalidDatasetError that lists the findings that stop training, if there are any."""
    stops = [item for item in findings if item.level == "stop"]
    if stops:
        raise InvalidDatasetError(
            "the data have faults that stop training",
            given="; ".join(f"{stop.what}: {few(stop.items, 3)}" for stop in stops),
            remedy="`automl-pt check` with the same data lists every case; repair, rename or remove them",
        )
