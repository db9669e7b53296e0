"""The frozen split: content, class and split of each image. One file per study, never rewritten."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args
from unicodedata import normalize

from automl_pt.core.errors import StudyError
from automl_pt.core.files import read_json, to_json, write_json
from automl_pt.dataset import SPLITS, Split
from automl_pt.images.pixel_format import RGB8, PixelFormat

FORMAT = 1


class Entry(NamedTuple):
    """One image: its name (path relative to the data's root), content, class (an index) and split."""

    name: str
    sha256: str
    label: int
    split: Split


class LeftOut(NamedTuple):
    """One file that was found and not used, and why; `sha256` is set if it was read and could not be decoded."""

    name: str
    reason: str
    sha256: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Entries sorted by name; `classes` sorted; `source` as the user named the data."""

    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    source: str
    seed: int
    left_out: tuple[LeftOut, ...] = ()
    #: the settings of the split; empty in manifests of earlier versions
    asked: Mapping[str, Any] = field(default_factory=dict)
    #: the channels and the depth of the pixels that are used; manifests of earlier versions are of photographs
    pixels: PixelFormat = RGB8

    def fingerprint(self) -> str:
        """Return a sha256 of all that a search sees: classes, and the contents of train and val entries in order.

        The format of the pixels is included unless they are those of photographs.

        Names are not included, so that the same data in another Unicode form count as the same; nor is the test split,
        because no search may depend on it.
        """
        digest = hashlib.sha256(to_json(self.classes).encode())
        if not self.pixels.is_rgb8:
            digest.update(to_json(self.pixels.to_dict()).encode())
        for entry in self.entries:
            if entry.split != "test":
                digest.update(f"\n{entry.sha256} {entry.label} {entry.split}".encode())
        return digest.hexdigest()

    def indices(self, split: Split) -> tuple[int, ...]:
        """Return the positions in `entries` of a split's images."""
        return tuple(index for index, entry in enumerate(self.entries) if entry.split == split)

    def counts(self) -> dict[Split, int]:
        """Count the images of each split."""
        return {split: len(self.indices(split)) for split in SPLITS}

    def save(self, path: Path) -> None:
        """Write the manifest as JSON with its own checksum, atomically; raise OutputError if that fails."""
        content = {
            "source": self.source,
            "seed": self.seed,
            "classes": self.classes,
            "entries": self.entries,
            "left_out": self.left_out,
            **({} if self.pixels.is_rgb8 else {"pixels": self.pixels.to_dict()}),
        }
        write_json(path, {"format": FORMAT, "sha256": _checksum(content), **content, "asked": dict(self.asked)})

    @staticmethod
    def load(path: Path) -> Manifest:
        """Read a manifest; raise StudyError if it is not an intact one."""
        try:
            values = read_json(path)
            manifest = _from_json(values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _damaged(path, f"{type(error).__name__}: {error}") from error
        return manifest


def manifest_beside(directory: Path) -> Path | None:
    """Return the manifest of the run or model in `directory`; None if there is none.

    A run has its own. A study has one for its model and its trials, which are in the study's folder and in `trials`.
    """
    own = Path(os.path.abspath(directory))  # resolve "." and "..", which are not names
    study = own.parents[1] if own.parent.name == "trials" else own.parent
    places = (folder / "manifest.json" for folder in (own, study))
    return next((path for path in places if path.is_file()), None)


def require_asked(manifest: Manifest, asked: Mapping[str, Any], path: Path) -> None:
    """Raise StudyError if the split in `path` was drawn with other settings than those requested now."""
    differing = [
        f"{key} was {was!r} and is {asked.get(key)!r}"
        for key, was in sorted(manifest.asked.items())
        if asked.get(key) != was
    ]
    if differing:
        raise StudyError(
            "the split is frozen, and was drawn with other settings",
            given=f"{path}: {', '.join(differing)}",
            remedy="give the same settings again, choose another folder, or remove the file to draw a new split",
        )


def by_name(name: str) -> tuple[str, str]:
    """Return the sort key of a name, which is the same on file systems with different Unicode forms."""
    return normalize("NFC", name), name


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(content).encode()).hexdigest()


def _from_json(values: Any) -> Manifest:
    content = {key: values[key] for key in ("source", "seed", "classes", "entries", "left_out")}
    if "pixels" in values:
        content["pixels"] = values["pixels"]
    if values["format"] != FORMAT:
        raise ValueError(f"format {values['format']!r}, this version reads {FORMAT}")
    if values["sha256"] != _checksum(content):
        raise ValueError("the content does not match its checksum")
    classes = tuple(_text(name) for name in content["classes"])
    return Manifest(
        entries=tuple(_entry(row, len(classes)) for row in content["entries"]),
        classes=classes,
        source=_text(content["source"]),
        seed=int(content["seed"]),
        left_out=tuple(_left_out(row) for row in content["left_out"]),
        asked=dict(values.get("asked", {})),
        pixels=PixelFormat.from_dict(values.get("pixels", {})),
    )


def _entry(row: Sequence[Any], classes: int) -> Entry:
    name, sha256, label, split = row
    if type(label) is not int or not 0 <= label < classes or split not in get_args(Split):
        raise ValueError(f"not an entry: {row!r}"[:200])
    return Entry(_text(name), _text(sha256), label, split)


def _left_out(row: Sequence[Any]) -> LeftOut:
    name, reason, sha256 = row
    return LeftOut(_text(name), _text(reason), None if sha256 is None else _text(sha256))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r}"[:200])
    return value


def _damaged(path: Path, reason: str) -> StudyError:
    return StudyError(
        "the study's manifest is damaged",
        given=f"{path}: {reason}"[:500],
        remedy="restore the file from a copy, or start a new study, because only this file states the training images",
    )
