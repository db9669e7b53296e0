"""Finds the validation images of a model's training again, from the information in its directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_pt.core.errors import AutomlError, UsageError
from automl_pt.core.text import printable
from automl_pt.images.decode import UnreadableImage
from automl_pt.model.labelled import Labelled, manifest_of, open_labelled
from automl_pt.model.load import find_model
from automl_pt.model.parity import ParityImages

if TYPE_CHECKING:
    from automl_pt.model.load import Model
    from automl_pt.plugins.manager import Plugins

#: limit of images, because more would add nothing to the verification of an export
MOST = 256
#: settings of a run that affect how its data are read
_READ = ("root", "image_column", "label_column", "split_column")


def validation_images(model: Model, path: Path, plugins: Plugins, *, most: int = MOST) -> ParityImages:
    """Return at most `most` readable images of the validation split, spread evenly over it, with their classes.

    If the data have no split, that of the manifest beside the model applies. Raises UsageError if the data no longer
    exist.
    """
    data = _validation(model, path, plugins)
    dataset = printable(model.info.config["dataset"])
    spread = np.unique(np.linspace(0, len(data.labels) - 1, min(most, len(data.labels))).round().astype(int))
    # of a lazy dataset, only the selected images are read
    wanted = replace(data, taken=tuple(data.taken[index] for index in spread))
    pairs = zip(wanted.sources(), data.labels[spread].tolist(), strict=True)
    readable = [pair for pair in pairs if _is_readable(pair[0], model)]
    if not readable:
        raise _gone(f"{dataset}: none of the validation images can be read")
    sources, labels = zip(*readable, strict=True)
    return ParityImages(sources, f"validation images of {dataset}", labels)


def _validation(model: Model, path: Path, plugins: Plugins) -> Labelled:
    config = model.info.config
    dataset = config.get("dataset")
    if not isinstance(dataset, str):
        raise _gone("model.json names no data")
    settings: dict[str, Any] = {name: config[name] for name in _READ if isinstance(config.get(name), str)}
    settings["follow_links"] = config.get("follow_links") is True
    try:
        manifest = manifest_of(find_model(path))
        return open_labelled(dataset, model.classes, plugins, split="val", manifest=manifest, **settings)
    except AutomlError as error:
        raise _gone(f"{error.rule}: {error.given}") from error


def _is_readable(source: Any, model: Model) -> bool:
    if isinstance(source, UnreadableImage):
        return False
    try:
        model.pixels([source])
    except UnreadableImage:
        return False  # the run that trained the model has reported it
    return True


def _gone(what: str) -> UsageError:
    return UsageError(
        "the model's validation images, which verify an export, are not available",
        given=what,
        remedy="give images after the model: files, folders or patterns",
    )
