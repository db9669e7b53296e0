"""Finds the columns of a table by the user's options, else by their usual names and content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from automl_pt.core.errors import ConfigError, InvalidDatasetError, NotLabeledDatasetError
from automl_pt.core.text import few, printable
from automl_pt.images.read import format_of
from automl_pt.layouts.left_out import suffix
from automl_pt.layouts.rows import Row
from automl_pt.layouts.split_column import SplitColumn, find_split_column, read_split_column

#: usual names, without case, space, dash and underscore
_USUAL = {
    "image": ("image", "imagepath", "path", "filepath", "file", "filename", "imagefile", "imagename", "img", "imgpath"),
    "label": ("label", "labels", "class", "classname", "category", "target", "classlabel", "labelname"),
    "group": ("group", "groupid"),
}


@dataclass(frozen=True)
class TableColumns:
    """The column of each kind in a table; None where it is to be guessed, or does not exist."""

    image: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None


def find_columns(
    path: Path, header: Sequence[str], rows: Sequence[Row], named: TableColumns
) -> tuple[TableColumns, SplitColumn | None, list[str]]:
    """Return the columns to use, how the column of splits is read, and notes for the user.

    Raises ConfigError for a named column that does not exist, InvalidDatasetError or NotLabeledDatasetError if the
    column of paths or labels is not obvious, or a column of splits is ambiguous. A column of splits is guessed by its
    name and content, one of groups by its name only.
    """
    _refuse_absent(path, header, named)
    chosen = {part.name: getattr(named, part.name) for part in fields(TableColumns)}
    free = [column for column in header if column not in chosen.values()]
    for kind in _USUAL:
        if chosen[kind] is None:
            chosen[kind] = _usual(kind, free)
            free = [column for column in free if column != chosen[kind]]
    chosen["image"] = chosen["image"] or _with_endings(free, rows)
    free = [column for column in free if column != chosen["image"]]
    splits, doubts = _split_column(path, free, rows, named, has_label=chosen["label"] is not None)
    chosen["split"] = splits.name if splits is not None else None
    free = [column for column in free if column != chosen["split"]]
    if chosen["label"] is None and len(free) == 1:
        chosen["label"] = free[0]
    _refuse_unclear(path, header, chosen)
    by_origin: dict[str, list[str]] = {"guessed": [], "as named": []}
    for kind, column in chosen.items():
        if column:
            how = "guessed" if getattr(named, kind) is None else "as named"
            by_origin[how].append(f"{kind} {printable(column)!r}")
    notes = [f"columns {how}: {', '.join(columns)}" for how, columns in by_origin.items() if columns]
    return TableColumns(**chosen), splits, [*notes, *doubts, *([] if splits is None else splits.note(rows))]


def _split_column(
    path: Path, free: Sequence[str], rows: Sequence[Row], named: TableColumns, *, has_label: bool
) -> tuple[SplitColumn | None, list[str]]:
    """Read the named column of splits, or find one; the only candidate for the labels is not considered."""
    if named.split is not None:
        return read_split_column(path, named.split, rows), []
    return (None, []) if len(free) == 1 and not has_label else find_split_column(path, free, rows)


def _usual(kind: str, columns: Sequence[str]) -> str | None:
    """Return the one column with a usual name; of several, the first usual name that only one column has."""
    plain = {column: "".join(c for c in column.casefold() if c not in " -_") for column in columns}
    for usual in _USUAL[kind]:
        found = [column for column in columns if plain[column] == usual]
        if len(found) == 1:
            return found[0]
    return None


def _with_endings(columns: Sequence[str], rows: Sequence[Row]) -> str | None:
    """Return the one column whose first cells all end like image files."""
    first = [cells for _, cells in rows[:100]]
    found = [column for column in columns if first and all(format_of(suffix(cells[column])) for cells in first)]
    return found[0] if len(found) == 1 else None


def _refuse_absent(path: Path, header: Sequence[str], named: TableColumns) -> None:
    wanted = {part.name: getattr(named, part.name) for part in fields(TableColumns)}
    absent = [
        f"{kind}_column: {printable(path.name)} has no column {column!r}; it has {few(header, 20)}"
        for kind, column in wanted.items()
        if column is not None and column not in header
    ]
    if absent:
        raise ConfigError(absent)


def _refuse_unclear(path: Path, header: Sequence[str], chosen: dict[str, str | None]) -> None:
    given = f"{printable(path)} with the columns {few(header, 20)}"
    if chosen["image"] is None:
        raise InvalidDatasetError(
            "the column of paths is unclear",
            given=given,
            remedy="name it with --image-column",
        )
    if chosen["label"] is None:
        raise NotLabeledDatasetError(
            "the column of labels is unclear",
            given=given,
            remedy="name it with --label-column",
        )
