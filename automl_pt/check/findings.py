"""The kinds of findings of `check`, their severity, how training handles them, and what a person can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import few, printable

#: stop: training refuses to start; falsify: it runs with wrong figures; note: it handles the case as described
Level = Literal["stop", "falsify", "note"]

_SKIPS = "stops before the first epoch; with --max-bad it skips and lists them"
#: kind -> level, description, how training handles it, what a person can do
KINDS: dict[str, tuple[Level, str, str, str]] = {
    "unreadable": (
        "stop",
        "files that are not images, or are damaged",
        _SKIPS,
        "remove the files or replace them; or accept a share of them with --max-bad 0.05",
    ),
    "truncated": (
        "stop",
        "images whose end is missing",
        _SKIPS,
        "copy the files again from their source; or accept a share of them with --max-bad 0.05",
    ),
    "empty": ("stop", "files of zero bytes", _SKIPS, "copy the files again from their source, or remove them"),
    "huge": (
        "stop",
        "images beyond the size limit, or decompression bombs",
        _SKIPS,
        "scale the images down, or remove them",
    ),
    "one class": (
        "stop",
        "fewer than two classes",
        "refuses, because there is nothing to distinguish",
        "put the images of each class into a folder of its own",
    ),
    "lost class": (
        "stop",
        "classes without a readable image",
        "refuses",
        "add readable images to the class, or remove its folder",
    ),
    "small class": (
        "stop",
        "classes too small to split",
        "refuses, unless the data bring their own split",
        "add images to the class, or join it with another one",
    ),
    "missing class": (
        "stop",
        "classes that are missing from training or validation",
        "refuses",
        "move some of the class's images into the split that has none",
    ),
    "twin classes": (
        "stop",
        "class names that differ only in case, spaces, invisible or composed characters, or like 1 and 1.0",
        "refuses",
        "rename or join the classes",
    ),
    "two classes": (
        "falsify",
        "one picture under two classes",
        "learns both labels; one of them is wrong",
        "decide which class is right, and remove the other copy",
    ),
    "alike classes": (
        "falsify",
        "nearly the same picture under two classes",
        "learns both labels; one of them may be wrong",
        "compare the pictures; where they show the same thing, keep one of them under the right class",
    ),
    "copies across": (
        "falsify",
        "the same file in two splits",
        "is measured on images it has memorised",
        "remove the copies from one of the splits",
    ),
    "alike across": (
        "falsify",
        "nearly the same picture in two splits",
        "is measured on nearly memorised images",
        "keep pictures of one scene in one split: move them, or let automl-pt split with --group-by",
    ),
    "copies unsplit": (
        "falsify",
        "the same file more than once, before a split is made",
        "may get one copy for training and another for validation",
        "remove the copies, or keep them together with --group-by or --group-column",
    ),
    "alike unsplit": (
        "note",
        "nearly the same picture more than once, before a split is made",
        "may get one for training and one for validation",
        "keep them together with --group-by or --group-column, for instance by patient or plot",
    ),
    "copies within": (
        "note",
        "the same file more than once within a split",
        "counts each copy",
        "remove the copies, unless they are meant to count twice",
    ),
    "complaint": (
        "note",
        "JPEG files with damage that the decoder could skip",
        "uses them as decoded",
        "look at the pictures; save those again that look damaged",
    ),
    "wrong ending": (
        "note",
        "files whose ending states another format",
        "uses the format of the content",
        "nothing; rename them if other programs stumble over it",
    ),
    "animated": (
        "note",
        "animations, and files of several images",
        "uses the first one",
        "nothing, unless the others matter: save these as images of their own",
    ),
    "CMYK": (
        "note",
        "images in print colours (CMYK)",
        "converts them to RGB without a colour profile",
        "nothing, unless colours matter: convert them to RGB with their colour profile",
    ),
    "16 bit": (
        "note",
        "images with 16 bits: 65,536 levels of brightness, where photographs have 256 (8 bits)",
        "keeps all levels if every image has them, and else reduces these images to 256",
        "nothing, unless small differences in brightness matter: then add --depth 16, which keeps them",
    ),
    "palette": ("note", "images with a palette", "converts the colours", "nothing"),
    "alpha": (
        "note",
        "images with transparent parts",
        "puts them on white",
        "nothing, unless the background matters: put them on the background that new images have",
    ),
    "rotated": ("note", "photographs with an EXIF rotation", "turns them upright", "nothing"),
    "odd sizes": (
        "note",
        "images of very different size",
        "resizes all to one side",
        "consider a larger --image-size where small details matter",
    ),
    "long": (
        "note",
        "images more than four times as long as wide",
        "uses only the centre square",
        "crop them where what matters is not in the centre",
    ),
    "hidden": ("note", "hidden and system files", "ignores them", "nothing"),
    "link": (
        "note",
        "links that leave the dataset, lead nowhere or repeat a file",
        "ignores them",
        "give --follow-links to include images that links lead to",
    ),
    "other file": (
        "note",
        "files that are not images by their ending",
        "ignores them",
        "nothing, or convert them to JPEG or PNG if they are images",
    ),
    "outside": ("note", "images in no class folder", "ignores them", "move them into a class folder, or remove them"),
    "repeated": (
        "note",
        "rows of the table that repeat an image",
        "counts the image once",
        "remove the rows that repeat an image",
    ),
    "odd name": ("note", "class names with invisible or reordering characters", "keeps the name", "rename the classes"),
    "unchecked": ("note", "comparisons that were not made", "continues", "check a part of the data by itself"),
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
    todo: str


def finding(kind: str, items: Sequence[Item], *, level: Level | None = None) -> list[Finding]:
    """Return a list with the finding, or an empty list without items; `level` replaces the kind's own level."""
    own, what, training, todo = KINDS[kind]
    return [Finding(kind, tuple(items), level or own, what, training, todo)] if items else []


def refuse(findings: Sequence[Finding]) -> None:
    """Raise one InvalidDatasetError that lists the findings that stop training, if there are any."""
    stops = [item for item in findings if item.level == "stop"]
    if stops:
        raise InvalidDatasetError(
            "the data have faults that stop training",
            given="; ".join(f"{stop.what}: {few(stop.items, 3)}" for stop in stops),
            remedy="`automl-pt check` with the same data lists every case; repair, rename or remove them",
        )
