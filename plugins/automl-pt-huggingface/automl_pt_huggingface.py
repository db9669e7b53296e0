"""Image sets of the Hugging Face `datasets` library, as the automl-pt dataset `huggingface`.

`--root` names the set: a folder written with `save_to_disk`, or a name on the hub, which `--download` fetches once.
Behind a question mark stands what cannot be guessed: `uoft-cs/cifar100?label=fine_label`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from automl_pt import Dataset, LabeledImages, hookimpl
from automl_pt.core.errors import InstallationError, InvalidDatasetError, NotLabeledDatasetError
from automl_pt.core.files import atomic_folder, cache_folder
from automl_pt.core.text import few, printable
from automl_pt.dataset import Split
from automl_pt.images.decode import UnreadableImage, decode_rgb, read
from automl_pt.layouts.split_words import split_named

OPTIONS = ("image", "label", "config", "revision")
_USAGE = "--root FOLDER (written with save_to_disk) or --root OWNER/NAME, then ?image=COLUMN&label=COLUMN if need be"


@hookimpl
def register_datasets() -> list[Dataset]:
    """Return the one dataset of this plugin."""
    description = "image sets of the Hugging Face library: --root FOLDER or --root OWNER/NAME"
    return [Dataset("huggingface", load, download=download, description=description)]


@dataclass(frozen=True)
class Source:
    """What `--root` says: a folder or a name on the hub, and options."""

    name: str
    image: str | None = None
    label: str | None = None
    config: str | None = None
    revision: str | None = None

    @property
    def folder(self) -> Path:
        """Return the folder itself, or where a set of the hub is kept."""
        if Path(self.name).is_dir():
            return Path(self.name)
        key = hashlib.sha256(repr((self.name, self.config, self.revision)).encode()).hexdigest()[:16]
        return cache_folder() / "huggingface" / key


class Images(Sequence[NDArray[np.uint8]]):
    """The images of some rows, uint8[H, W, 3], each decoded when it is asked for; raises UnreadableImage then."""

    def __init__(self, rows: Sequence[tuple[Any, int]], column: str, names: Sequence[str]) -> None:
        self._rows, self._column, self._names = rows, column, names

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> Images: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | Images:
        if isinstance(index, slice):
            return Images(self._rows[index], self._column, self._names[index])
        part, row = self._rows[index]
        cell = part[row][self._column]
        return decode_rgb(_content(cell, self._names[index]), self._names[index])


def load(root: Path | None) -> LabeledImages:
    """Open a set; nothing is decoded, nothing is fetched."""
    source = parse(root)
    parts = _parts(source)
    first = next(iter(parts.values()))
    image, label = _columns(source, first.features)
    classes, titles = _classes(parts, label)
    found = [
        (part.cast_column(image, _undecoded()), row, name, split, titles[str(value)])
        for split, part in parts.items()
        for row, (name, value) in enumerate(_named(split, part, label))
        if str(value) in titles
    ]
    count = sum(len(part) for part in parts.values())
    names = [name for _, _, name, _, _ in found]
    splits = [_split(split) for _, _, _, split, _ in found]
    return LabeledImages(
        images=Images([(part, row) for part, row, _, _, _ in found], image, names),
        labels=[title for _, _, _, _, title in found],
        classes=classes,
        splits=splits if any(splits) else None,
        names=names,
        left_out=[(f"{printable(source.name)}: {count - len(found)} rows", "no label")] if len(found) < count else [],
        content_id="huggingface " + " ".join(f"{name}={part._fingerprint}" for name, part in sorted(parts.items())),
        notes=[
            f"columns: image {printable(image)!r}, label {printable(label)!r}; splits {few(parts)}",
            *_other_parts(parts),
        ],
    )


def download(root: Path | None) -> None:
    """Fetch a set of the hub into the cache folder, unless it is there; a local folder needs nothing."""
    source = parse(root)
    if source.folder.is_dir():
        return
    from datasets import load_dataset

    try:
        fetched = load_dataset(source.name, source.config, revision=source.revision)
    except Exception as error:  # the library and the hub fail in many ways: no network, no such set, no access
        raise InvalidDatasetError(
            "a set must be on the Hugging Face hub, and reachable",
            given=f"{printable(source.name)}: {printable(error)[:300]}",
            remedy="check the name and the network; a set behind a licence needs `hf auth login` first",
        ) from error
    with atomic_folder(source.folder) as folder:
        fetched.save_to_disk(folder)


def parse(root: Path | None) -> Source:
    """Read `--root`; raise InvalidDatasetError where it says nothing usable."""
    name, _, query = str(root or "").partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - set(OPTIONS))
    if not name or unknown:
        given = f"unknown {few(unknown)}; known are {few(OPTIONS)}" if unknown else "no --root"
        raise InvalidDatasetError("the dataset 'huggingface' needs to know which set", given=given, remedy=_USAGE)
    return Source(name, **options)


def _parts(source: Source) -> dict[str, Any]:
    """Return the set's splits by name; the name is "" where it has none."""
    try:
        from datasets import DatasetDict, load_from_disk
    except ImportError as error:
        raise InstallationError(
            "Hugging Face sets need the library datasets", given=printable(error), remedy="pip install datasets"
        ) from error
    if not source.folder.is_dir():
        raise InvalidDatasetError(
            "a set must be a folder here, or have been fetched from the hub",
            given=printable(source.name),
            remedy="check the path, or add --download to fetch the set of that name once",
        )
    try:
        opened = load_from_disk(source.folder)
    except Exception as error:  # pyarrow and the library raise many types on damaged files
        raise InvalidDatasetError(
            "a Hugging Face set is a folder written with save_to_disk",
            given=f"{printable(source.folder)}: {printable(error)[:300]}",
            remedy="write it again; a folder of image files is opened without this plugin: give its path",
        ) from error
    return dict(sorted(opened.items())) if isinstance(opened, DatasetDict) else {"": opened}


def _columns(source: Source, features: Any) -> tuple[str, str]:
    """Return the columns of images and labels: as given, else the only one of its kind."""
    from datasets import ClassLabel, Image

    images = [source.image] if source.image else [name for name, kind in features.items() if isinstance(kind, Image)]
    labels = [source.label] if source.label else [n for n, kind in features.items() if isinstance(kind, ClassLabel)]
    labels = labels or [name for name in features if name.casefold() in ("label", "labels", "class", "category")]
    given = f"{printable(source.name)} with the columns {few(features, 20)}"
    if len(images) != 1 or not isinstance(features.get(images[0]), Image):
        remedy = "name it: --root NAME?image=COLUMN"
        raise InvalidDatasetError("the column of images is unclear", given=given, remedy=remedy)
    if len(labels) != 1 or labels[0] not in features:
        remedy = "name it: --root NAME?label=COLUMN"
        raise NotLabeledDatasetError("the column of labels is unclear", given=given, remedy=remedy)
    return images[0], labels[0]


def _classes(parts: dict[str, Any], label: str) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the names of the classes that have images, sorted, and the label of each cell's text."""
    from datasets import ClassLabel

    values = sorted({value for part in parts.values() for value in part.unique(label) if value not in (None, -1, "")})
    kind = next(iter(parts.values())).features[label]
    names = {str(value): kind.int2str(value) if isinstance(kind, ClassLabel) else str(value) for value in values}
    if not names:
        raise NotLabeledDatasetError(
            "the images have no labels",
            given=f"nothing in the column {printable(label)!r}",
            remedy="name another: --root NAME?label=COLUMN",
        )
    classes = tuple(sorted(set(names.values())))
    return classes, {text: classes.index(name) for text, name in names.items()}


def _named(split: str, part: Any, label: str) -> Iterator[tuple[str, Any]]:
    """Yield a lasting name for each row, and its label's cell."""
    for row, value in enumerate(part[label][:]):
        yield f"{split or 'row'}/{row:09}", value


def _split(name: str) -> Split | None:
    """Return which split a part is: parts of other names are used for training, and divided further."""
    return split_named(name)


def _other_parts(parts: dict[str, Any]) -> list[str]:
    """Say how many rows are used for training because their part has another name, where some are named as splits."""
    others = {name: len(part) for name, part in parts.items() if _split(name) is None}
    if not others or len(others) == len(parts):
        return []
    return [f"{sum(others.values())} rows of {few(others)} count for training: no splits by their names"]


def _undecoded() -> Any:
    from datasets import Image

    return Image(decode=False)


def _content(cell: Any, name: str) -> bytes:
    """Return the bytes of an image file kept in a cell, or of the file that it names."""
    if cell is None:
        raise UnreadableImage(name, "no image in this row")
    return cell["bytes"] if cell["bytes"] is not None else read(Path(cell["path"]))
