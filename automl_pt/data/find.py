"""Finds the images of the setting `dataset`: a registered dataset, else a path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from automl_pt.core.errors import InvalidDatasetError, UnknownNameError
from automl_pt.core.files import is_there, not_found
from automl_pt.core.text import printable
from automl_pt.dataset import Hints, LabeledImages
from automl_pt.layouts import left_out
from automl_pt.layouts.layouts import grouped, open_path

if TYPE_CHECKING:
    from automl_pt.config import Settings
    from automl_pt.plugins.manager import Plugins

_LAYOUT = ("image_column", "label_column", "split_column", "group_column", "group_by", "follow_links")


def find(settings: Settings, plugins: Plugins) -> tuple[LabeledImages, Hints]:
    """Return the images of `settings.dataset`, and their hints, without decoding any.

    The images' notes state how many files are ignored.
    A registered name takes precedence over a file or folder of the same name ("./digits" means the folder). Raises
    UnknownNameError or InvalidDatasetError if there is neither, and what opening the data raises.
    """
    images, hints = _open(settings, plugins)
    return replace(images, notes=(*images.notes, *left_out.notes(images.left_out))), hints


def _open(settings: Settings, plugins: Plugins) -> tuple[LabeledImages, Hints]:
    datasets = plugins.datasets()
    if settings.dataset in datasets:
        dataset = datasets[settings.dataset]
        root = Path(settings.root) if settings.root is not None else None
        if settings.download and dataset.download is not None:
            dataset.download(root)
        images = dataset.load(root)
        return (images if settings.group_by is None else grouped(images, settings.group_by)), dataset.hints
    path = Path(settings.dataset)
    if not is_there(path):
        raise _not_found(settings.dataset, list(datasets))
    return open_path(path, **{name: getattr(settings, name) for name in _LAYOUT}), Hints()


def hints_of(settings: Settings, plugins: Plugins) -> Hints:
    """Return the hints of `settings.dataset`, before its images are listed.

    Raises what `find` raises if there is neither such a name nor such a path.
    """
    datasets = plugins.datasets()
    if settings.dataset in datasets:
        return datasets[settings.dataset].hints
    if not Path(settings.dataset).exists():
        raise _not_found(settings.dataset, list(datasets))
    return Hints()


def _not_found(dataset: str, known: Sequence[str]) -> UnknownNameError | InvalidDatasetError:
    if "/" in dataset or dataset.startswith("."):
        remedy = "check the path; a relative one starts at the working folder of the command"
        return InvalidDatasetError(not_found(dataset), given=printable(dataset), remedy=remedy)
    remedy = "`automl-pt datasets` lists all of them; anything else must be the path of a folder, archive or table"
    return UnknownNameError("dataset", dataset, known, remedy=remedy, rule=not_found(dataset, known))
