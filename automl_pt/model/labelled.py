"""Labelled images to evaluate a model on: their split, and the model's class of each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from automl_pt.config import TrainConfig, make
from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.files import cache_folder
from automl_pt.core.text import counted, few, printable
from automl_pt.data.find import find
from automl_pt.data.inventory import Inventory
from automl_pt.data.manifest import Manifest, manifest_beside
from automl_pt.data.split import names_of
from automl_pt.dataset import SPLITS, LabeledImages
from automl_pt.images.decode import UnreadableImage
from automl_pt.layouts.class_names import matched
from automl_pt.model.predict import answer_of, outcomes
from automl_pt.model.unsure import Answer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_pt.model.load import Model
    from automl_pt.plugins.manager import Plugins

#: "unseen" are all images except those that the model was trained on
Choice = Literal["train", "val", "test", "unseen", "all"]


@dataclass(frozen=True)
class Labelled:
    """N images of one split, with labels int64[N] that index the model's classes. `notes` state the choices made."""

    images: Sequence[Path | NDArray[np.uint8]]
    #: the positions in `images` that are used
    taken: tuple[int, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    split: Choice
    notes: tuple[str, ...]
    #: the splits of the data, as given or as the model's own training drew them
    present: tuple[str, ...] = ()

    def sources(self) -> Iterator[Path | NDArray[np.uint8] | UnreadableImage]:
        """Yield the images that are used, or the error of a lazy sequence in place of one."""
        for index in self.taken:
            try:
                yield self.images[index]
            except UnreadableImage as error:
                yield error

    def for_model(self, classes: Sequence[str], others: Sequence[str]) -> Labelled:
        """Return the same images with labels that index `others`; raise InvalidDatasetError for a missing class."""
        titles = [classes[label] for label in self.labels]
        same = matched(set(titles), others)
        _check_classes("the data", set(titles), others, same)
        return replace(self, labels=_labels(titles, same, others))


@dataclass(frozen=True)
class Scored:
    """Logits float32[N, C] and labels int64[N] of the N readable images, and (name, reason) of the others."""

    names: tuple[str, ...]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    unreadable: tuple[tuple[str, str], ...]
    #: float32[N, D], if they were requested
    features: NDArray[np.float32] | None = None
    #: by the model's rule for unsure answers, if it has one
    answers: tuple[Answer, ...] | None = None

    def at(self, temperature: float) -> Scored:
        """Return the same with logits divided by `temperature`."""
        return replace(self, logits=self.logits / np.float32(temperature)) if temperature != 1 else self


def manifest_of(directory: Path) -> Manifest | None:
    """Return the split that the model in `directory` was trained with, if its run or study still has it.

    Raises StudyError for a damaged manifest.
    """
    path = manifest_beside(directory)
    return None if path is None else Manifest.load(path)


def open_labelled(
    dataset: str,
    classes: Sequence[str],
    plugins: Plugins,
    *,
    split: Choice | None = None,
    manifest: Manifest | None = None,
    **settings: Any,
) -> Labelled:
    """Open a folder, table, archive or named dataset for a model of `classes`, without decoding.

    `split` None means test if there is one, else val, else all images. If the data have no splits, those of
    `manifest` apply, image by image, by content; images that are in none of them are then used too, beside those that
    the model was not trained on. `settings` are fields of TrainConfig on how the data are read.
    Raises InvalidDatasetError if the data have classes unknown to the model, or no image of the split;
    NotLabeledDatasetError and other errors of opening the data.
    """
    data, _ = find(**make(TrainConfig, {"dataset": dataset, **settings}).data_source, plugins=plugins)
    known = _known_splits(data, manifest)
    chosen: Choice | None = None
    if data.splits is None and any(known):
        data = replace(data, splits=known, notes=(*data.notes, _known_note(known)))
        chosen = "unseen" if split is None and None in known and set(known) != {None, "train"} else None
    chosen = chosen or choose_split(data, split, dataset)
    splits = data.splits if data.splits is not None else [None] * len(data)
    taken = [index for index in range(len(data)) if _counts(chosen, splits[index], known[index])]
    _require_some(taken, chosen, dataset)
    titles = [data.classes[data.labels[index]] for index in taken]
    same = matched(set(titles), classes)
    absent = _check_classes(dataset, set(titles), classes, same)
    names = names_of(data)
    notes = _notes(data, chosen, absent, sum(known[index] == "train" for index in taken), same)
    part = [] if len(taken) == len(data) else [f"{len(taken)} of {len(data)} images are evaluated: split {chosen}"]
    return Labelled(
        data.images,
        tuple(taken),
        tuple(names[index] for index in taken),
        _labels(titles, same, classes),
        chosen,
        (*data.notes, *part, *notes),
        tuple(sorted({own for own in splits if own is not None})),
    )


def _require_some(taken: Sequence[int], chosen: Choice, dataset: str) -> None:
    if not taken:
        raise InvalidDatasetError(
            "the requested split has no images",
            given=f"{chosen!r} of {printable(dataset)}: none",
            remedy="choose another split, or `--split all`",
        )


def _known_note(known: Sequence[str | None]) -> str:
    """State how many images are in which split of the model's own training, and how many in none."""
    counts = Counter(known)
    new = counts.pop(None, 0)
    said = ", ".join(f"{counts[split]} {split}" for split in SPLITS if counts[split])
    none = f"; {counted(new, 'image')} here {'was' if new == 1 else 'were'} in none of them" if new else ""
    return f"splits are those the model was trained with: {said}{none}"


def _counts(chosen: Choice, own: str | None, known: str | None) -> bool:
    """Return whether an image belongs to the chosen split, by its split in the data and in the model's training."""
    return chosen in ("all", own) or (chosen == "unseen" and "train" not in (own, known))


def _labels(titles: Sequence[str], same: Mapping[str, str], classes: Sequence[str]) -> NDArray[np.int64]:
    index_of = {name: index for index, name in enumerate(classes)}
    return np.array([index_of[same[title]] for title in titles], np.int64)


def _known_splits(data: LabeledImages, manifest: Manifest | None) -> list[Any]:
    """Return each image's split in the model's own training, None if it was not used there."""
    if manifest is None:
        return [None] * len(data)
    names = names_of(data)
    digests = Inventory(data, cache_folder()).digests(names)
    split_of = {entry.sha256: entry.split for entry in manifest.entries}
    # an image that cannot be read has an error as its digest, which no manifest contains
    return [split_of.get(str(digests[name])) for name in names]


def _notes(
    data: LabeledImages, chosen: Choice, absent: Sequence[str], trained: int, same: Mapping[str, str]
) -> Iterator[str]:
    if respelled := sorted(f"{name!r} for {model!r}" for name, model in same.items() if name != model):
        yield f"{counted(len(respelled), 'class name')} spelled differently in the model: {few(respelled)}"
    if data.splits is None and chosen == "all":
        yield "the data have no splits: all images are used, including any that the model was trained on"
    if absent:
        yield f"{len(absent)} of the model's classes have no images here: {few(absent)}"
    if trained and chosen != "train":
        yield f"{trained} of these images were trained on: the figures are too good for new images"


def choose_split(data: LabeledImages, split: Choice | None, dataset: str) -> Choice:
    """Return the split to evaluate on; raise InvalidDatasetError if the requested one has no images."""
    present = {own for own in data.splits or () if own is not None}
    if split is None:
        order: tuple[Choice, ...] = ("test", "val")
        return next((name for name in order if name in present), "all")
    if split not in ("all", "unseen") and split not in present:
        raise InvalidDatasetError(
            "the requested split has no images",
            given=f"{split!r} of {printable(dataset)}, which has {', '.join(sorted(present)) or 'no splits'}",
            remedy="choose one of those, or `--split all`",
        )
    return split


def run_model(
    model: Model, data: Labelled, advance: Callable[[], None] = lambda: None, *, features: bool = False
) -> Scored:
    """Run the model on every image, in validation's batches; raise InvalidDatasetError if none can be read."""
    rows, labels, names, unreadable, kept, answers = [], [], [], [], [], []
    found = outcomes(model, data.sources(), features=features)
    for (_, outcome), label, name in zip(found, data.labels, data.names, strict=True):
        if isinstance(outcome, UnreadableImage):
            unreadable.append((name, outcome.reason))
        else:
            rows.append(outcome.logits)
            labels.append(label)
            names.append(name)
            if (answer := answer_of(model, outcome)) is not None:
                answers.append(answer)
            if features and outcome.features is not None:
                kept.append(outcome.features)
        advance()
    if not rows:
        raise InvalidDatasetError(
            "no image is readable",
            given=few(f"{name}: {reason}" for name, reason in unreadable),
            remedy="repair the files; `automl-pt check` lists what is wrong with each",
        )
    return Scored(
        tuple(names),
        np.stack(rows),
        np.array(labels, np.int64),
        tuple(unreadable),
        np.stack(kept) if kept else None,
        tuple(answers) if answers else None,
    )


def _check_classes(dataset: str, found: set[str], classes: Sequence[str], same: Mapping[str, str]) -> list[str]:
    """Return the model's classes that the data lack; raise InvalidDatasetError for classes that the model lacks.

    `same` maps classes of the data to classes of the model that read the same.
    """
    unknown, absent = sorted(found - set(same)), sorted(set(classes) - set(same.values()))
    if unknown:
        raise InvalidDatasetError(
            "the data have classes that the model does not have",
            given=f"{printable(dataset)}: only in the data: {few(unknown)}; only in the model: {few(absent) or 'none'}",
            remedy="rename the folders like the model's classes, or remove the others",
        )
    return absent
