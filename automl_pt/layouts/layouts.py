"""Opens the layouts of labelled images: folders, archives, tables."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from automl_pt.core.errors import ConfigError, InvalidDatasetError
from automl_pt.core.files import is_there, not_found
from automl_pt.core.text import few, printable
from automl_pt.dataset import LabeledImages
from automl_pt.layouts.columns import TableColumns
from automl_pt.layouts.folders import TABLE_SUFFIXES, WANTED, open_folder
from automl_pt.layouts.listing import list_images as list_images
from automl_pt.layouts.listing import read_list as read_list

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2")


def open_path(
    path: Path,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    group_by: str | None = None,
    follow_links: bool = False,
) -> LabeledImages:
    """Open a folder, an archive or a table of labelled images without decoding any.

    `group_by` is a regular expression searched in each image's name, its relative path: images whose first regex groups
    are equal (or whose matches are, without regex groups) form one group; an image that does not match is its own
    group. With `follow_links`, links in a folder or table may lead out of it.
    Raises NotLabeledDatasetError for images without labels, InvalidDatasetError for other data that cannot be trained
    on, ConfigError for column options without a table.
    """
    columns = TableColumns(image_column, label_column, split_column, group_column)
    lower = path.name.lower()
    if not is_there(path):
        raise InvalidDatasetError(not_found(path), given=printable(path), remedy="check the path")
    if path.is_file() and lower.endswith(TABLE_SUFFIXES):
        from automl_pt.layouts.tables import open_table

        data = open_table(path, columns, follow_links=follow_links)
    elif columns != TableColumns():
        raise ConfigError(["image, label, split and group columns apply to a table only"], source=str(path))
    elif path.is_dir():
        data = open_folder(path, follow_links=follow_links)
    elif path.is_file() and lower.endswith(ARCHIVE_SUFFIXES):
        from automl_pt.layouts.archives import extract, ignored

        folder = extract(path)
        data = open_folder(folder, shown=path, ignored=ignored(folder))
    else:
        raise InvalidDatasetError(
            "not a folder, a zip or tar archive, or a CSV or parquet table", given=printable(path), remedy=WANTED
        )
    return data if group_by is None else grouped(data, group_by)


def grouped(data: LabeledImages, pattern: str) -> LabeledImages:
    """Group images whose names have the same group of `pattern`; raise InvalidDatasetError if none match."""
    if data.names is None:
        raise ConfigError(["group_by needs images with names; this dataset has none"])
    matches = [re.search(pattern, name) for name in data.names]
    alone = sum(match is None for match in matches)
    if alone == len(matches):
        raise InvalidDatasetError(
            "group_by matches no image's relative path",
            given=f"{pattern!r}, and paths such as {few(data.names, 3)}",
            remedy="correct the pattern; it is searched anywhere in the path",
        )
    groups = [
        f"name:{name}" if match is None else f"group:{match.group(1 if match.re.groups else 0)}"
        for name, match in zip(data.names, matches, strict=True)
    ]
    note = f"{len(set(groups))} groups by {pattern!r}" + (
        f"; {alone} images do not match and are groups of their own" if alone else ""
    )
    return replace(data, groups=groups, notes=(*data.notes, note))
