"""Finds the images of the setting `dataset`: a registered dataset, else a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_pt.core.errors import InvalidDatasetError, UnknownNameError
from automl_pt.core.files import is_there, not_found
from automl_pt.core.text import printable
from automl_pt.dataset import Hints, LabeledImages
from automl_pt.layouts import left_out
from automl_pt.layouts.layouts import grouped, open_path

if TYPE_CHECKING:
    from automl_pt.plugins.manager import Plugins


def find(
    dataset: str, plugins: Plugins, *, root: str | None = None, download: bool = False, **layout: Any
) -> tuple[LabeledImages, Hints]:
    """Return the images of the setting `dataset`, and their hints, without decoding any.

    `layout` are the settings by which files are read, such as `group_by`, see `Settings.data_source`. The images' notes
    state how many files are ignored.
    A registered name takes precedence over a file or folder of the same name ("./digits" means the folder). Raises
    UnknownNameError or InvalidDatasetError if there is neither, and what opening the data raises.
    """
    images, hints = _open(dataset, plugins, root, download, layout)
    return replace(images, notes=(*images.notes, *left_out.notes(images.left_out))), hints


def _open(
    dataset: str, plugins: Plugins, root: str | None, download: bool, layout: Mapping[str, Any]
) -> tuple[LabeledImages, Hints]:
    datasets = plugins.datasets()
    if dataset in datasets:
        registered, folder = datasets[dataset], Path(root) if root is not None else None
        if download and registered.download is not None:
            registered.download(folder)
        images, group_by = registered.load(folder), layout.get("group_by")
        return (images if group_by is None else grouped(images, group_by)), registered.hints
    path = Path(dataset)
    if not is_there(path):
        raise _not_found(dataset, list(datasets))
    return open_path(path, **layout), Hints()


def hints_of(dataset: str, plugins: Plugins) -> Hints:
    """Return the hints of the setting `dataset`, before its images are listed.

    Raises what `find` raises if there is neither such a name nor such a path.
    """
    datasets = plugins.datasets()
    if dataset in datasets:
        return datasets[dataset].hints
    if not Path(dataset).exists():
        raise _not_found(dataset, list(datasets))
    return Hints()


def require_path(dataset: str) -> None:
    """Raise InvalidDatasetError for a setting that can only be a path, and leads to nothing; needs no plugins.

    What has a slash inside may be a plugin's dataset.
    """
    if dataset.startswith(("/", ".")) and not is_there(dataset):
        raise _not_found(dataset, ())


def _is_path(dataset: str) -> bool:
    return "/" in dataset or dataset.startswith(".")


def _not_found(dataset: str, known: Sequence[str]) -> UnknownNameError | InvalidDatasetError:
    if _is_path(dataset):
        remedy = "check the path; a relative one starts at the working folder of the command"
        return InvalidDatasetError(not_found(dataset), given=printable(dataset), remedy=remedy)
    remedy = "`automl-pt datasets` lists all of them; anything else must be the path of a folder, archive or table"
    return UnknownNameError("dataset", dataset, known, remedy=remedy, rule=not_found(dataset, known))
