"""What `check` can find, how bad it is, and what training would do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import few, printable

#: stop: training refuses to start; falsify: it would run and its figures would be wrong; note: it copes, as told
Level = Literal["stop", "falsify", "note"]

_LEAVES_OUT = "stops before the first epoch; with --max-bad it leaves them out and lists them"
#: kind: level, what it is, what training would do
KINDS: dict[str, tuple[Level, str, str]] = {
    "unreadable": ("stop", "files that are no image, or damaged", _LEAVES_OUT),
    "truncated": ("stop", "images whose end is missing", _LEAVES_OUT),
    "empty": ("stop", "files of zero bytes", _LEAVES_OUT),
    "huge": ("stop", "images beyond the size limit, or decompression bombs", _LEAVES_OUT),
    "one class": ("stop", "fewer than two classes", "refuses: there is nothing to tell apart"),
    "lost class": ("stop", "classes without a readable image", "refuses"),
    "small class": ("stop", "classes too small to split", "refuses, unless the data bring their own split"),
    "missing class": ("stop", "classes that only one of training and validation has", "refuses"),
    "twin classes": (
        "stop",
        "class names that differ only in case, spaces, invisible or composed characters, or as 1 and 1.0 do",
        "refuses",
    ),
    "two classes": ("falsify", "one picture under two classes", "learns both labels; one of them is wrong"),
    "copies across": ("falsify", "the same file in two splits", "is measured on images it has learnt by heart"),
    "alike across": ("falsify", "nearly the same picture in two splits", "is measured on images it has nearly seen"),
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
    "complaint": ("note", "JPEG files with damage that the decoder could pass over", "uses them as they decode"),
    "wrong ending": ("note", "files whose ending tells another format", "goes by the content"),
    "animated": ("note", "animations", "uses the first frame"),
    "CMYK": ("note", "images in print colours (CMYK)", "converts them to RGB without a colour profile"),
    "16 bit": ("note", "images with 16 bits a channel", "scales them to 8 bits"),
    "palette": ("note", "images with a palette", "looks the colours up"),
    "alpha": ("note", "images with transparent parts", "lays them on white"),
    "rotated": ("note", "photographs whose EXIF data turn them", "turns them upright"),
    "odd sizes": ("note", "images of very different size", "resizes all to one side: choose --image-size with care"),
    "long": ("note", "images more than four times as long as wide", "sees the centre square alone"),
    "hidden": ("note", "hidden files and what systems leave behind", "ignores them"),
    "link": ("note", "links that leave the dataset, lead nowhere or repeat what is counted", "ignores them"),
    "other file": ("note", "files that are no image by their ending", "ignores them"),
    "outside": ("note", "images in no class folder", "ignores them"),
    "repeated": ("note", "rows of the table that repeat an image", "counts the image once"),
    "odd name": ("note", "class names with invisible or reordering characters", "keeps the name"),
    "unchecked": ("note", "comparisons that were not made", "goes on"),
}


@dataclass(frozen=True)
class Item:
    """One case of a finding: the names concerned (two or more where they are alike), and what there is to say."""

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
    """Return a list with the finding, or an empty list without items; `level` overrides the kind's own."""
    own, what, training = KINDS[kind]
    return [Finding(kind, tuple(items), level or own, what, training)] if items else []


def refuse(findings: Sequence[Finding]) -> None:
    """Raise one InvalidDatasetError that lists the findings with which training cannot start; else return."""
    stops = [item for item in findings if item.level == "stop"]
    if stops:
        raise InvalidDatasetError(
            "training needs data without faults that `automl-pt check` calls stops",
            given="; ".join(f"{stop.what}: {few(stop.items, 3)}" for stop in stops),
            remedy="`automl-pt check` with the same data lists every case; mend, rename or remove them",
        )
