"""WebDataset shards, as the automl-pt dataset `webdataset`: tar files of KEY.jpg beside KEY.cls.

Of a shard nothing is unpacked and nothing is decoded but images: where its members lie is noted once, and an image is
read from there when it is asked for. Members of any other kind, pickles among them, are not opened.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automl_pt import Dataset, LabeledImages, LazyImages, hookimpl
from automl_pt.core.errors import InvalidDatasetError, NotLabeledDatasetError
from automl_pt.core.text import few, printable
from automl_pt.dataset import Split
from automl_pt.images.decode import decode_rgb
from automl_pt.layouts.split_words import split_named
from automl_pt.layouts.tar import members, open_tar

IMAGES = ("bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp")
#: bytes of a label; what is longer is none
MAX_LABEL = 1024
#: bytes of one image
MAX_IMAGE = 512 * 1024 * 1024


@hookimpl
def register_datasets() -> list[Dataset]:
    """Return the one dataset of this plugin."""
    return [Dataset("webdataset", load, description="WebDataset shards (tar): --root FOLDER")]


@dataclass(frozen=True, slots=True)
class Sample:
    """An image within a shard: where its bytes lie, and the text of its label, None where there is none."""

    shard: Path
    key: str
    offset: int
    size: int
    label: str | None

    @property
    def name(self) -> str:
        """Return a lasting name: the shard's and the key."""
        return f"{self.shard.name}/{self.key}"


def load(root: Path | None) -> LabeledImages:
    """Note what the shards in `root` hold; no image is decoded."""
    shards = _shards(root)
    samples = [sample for shard in shards for sample in _samples(shard)]
    labelled = [sample for sample in samples if sample.label is not None]
    if not labelled:
        raise NotLabeledDatasetError(
            "a shard's images need labels: KEY.cls beside KEY.jpg",
            given=f"{printable(root)}: {len(samples)} images in {few(shard.name for shard in shards)}",
            remedy="write the class, a number or a name, as KEY.cls for each image",
        )
    texts, classes = _classes(root or Path(), {sample.label or "" for sample in labelled})
    places = {text: place for place, text in enumerate(texts)}
    splits = [_split(sample.shard) for sample in labelled]
    return LabeledImages(
        images=LazyImages(len(labelled), lambda index: _read(labelled[index])),
        labels=[places[sample.label or ""] for sample in labelled],
        classes=classes,
        splits=splits if any(splits) else None,
        names=[sample.name for sample in labelled],
        left_out=[(sample.name, "no .cls beside it") for sample in samples if sample.label is None],
        content_id=_content(shards),
        notes=[f"{len(shards)} shards"],
    )


def _shards(root: Path | None) -> list[Path]:
    found = sorted(root.glob("*.tar")) if root is not None and root.is_dir() else []
    if not found:
        packed = sorted(path.name for path in root.glob("*.tar.*")) if root is not None and root.is_dir() else []
        raise InvalidDatasetError(
            "the dataset 'webdataset' needs a folder of .tar shards, not packed further",
            given=f"--root {printable(root)}" + (f" with {few(packed)}" if packed else ""),
            remedy="give their folder with --root; unpack .tar.gz with gunzip, for images cannot be found within them",
        )
    return found


def _samples(shard: Path) -> Iterator[Sample]:
    """Yield the images of a shard, each with the label that has its key, wherever that stands."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with open_tar(shard, limit=shard.stat().st_size) as content:
            for member in members(content):
                key, _, kind = _key(member.name)
                if not member.isreg():
                    continue
                if kind in IMAGES and key not in images:
                    images[key] = member.offset_data, member.size
                elif kind == "cls" and member.size <= MAX_LABEL and (stream := content.extractfile(member)) is not None:
                    labels[key] = stream.read(MAX_LABEL).decode("utf-8", "replace").strip()
    except tarfile.TarError as error:
        raise InvalidDatasetError(
            "a shard must be a whole tar file",
            given=f"{printable(shard)}: {printable(error)}",
            remedy="fetch or write the shard again",
        ) from error
    for key, (offset, size) in images.items():
        yield Sample(shard, key, offset, size, labels.get(key) or None)


def _key(member: str) -> tuple[str, str, str]:
    """Split a member's name as WebDataset does: at the first dot behind the last slash."""
    folder, slash, name = member.rpartition("/")
    key, dot, kind = name.partition(".")
    return folder + slash + key, dot, kind.lower()


def _classes(root: Path, texts: set[str]) -> tuple[list[str], list[str]]:
    """Return the labels' texts in order, and the classes' names: lines of classes.txt where labels are numbers."""
    if not all(text.isdecimal() for text in texts):
        return sorted(texts), sorted(texts)
    ordered, listed = sorted(texts, key=int), root / "classes.txt"
    if not listed.is_file():
        return ordered, ordered
    names = listed.read_text(encoding="utf-8").splitlines()
    if int(ordered[-1]) >= len(names):
        raise InvalidDatasetError(
            "classes.txt names every class, one a line",
            given=f"{printable(listed)}: {len(names)} lines, and the label {ordered[-1]}, counted from 0",
            remedy="add the missing names, or remove the file",
        )
    return ordered, [names[int(text)] for text in ordered]


def _split(shard: Path) -> Split | None:
    """Return the split that a shard's name begins with, as in train-000000.tar."""
    return split_named(shard.name.replace("_", "-").partition("-")[0])


def _read(sample: Sample) -> NDArray[np.uint8]:
    with open(sample.shard, "rb") as stream:
        stream.seek(sample.offset)
        content = stream.read(min(sample.size, MAX_IMAGE))
    return decode_rgb(content, sample.name)


def _content(shards: list[Path]) -> str:
    """Return a text that changes when a shard is written again."""
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in shards]
    return f"webdataset {hashlib.sha256(repr(states).encode()).hexdigest()}"
