"""Opens a table of images: a CSV or parquet file with a column of paths and one of labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

from automl_pt.core.errors import InvalidDatasetError, NotLabeledDatasetError
from automl_pt.core.text import counted, few, printable
from automl_pt.dataset import LabeledImages, Split
from automl_pt.layouts.columns import TableColumns, find_columns
from automl_pt.layouts.folders import assemble
from automl_pt.layouts.rows import Row, read_rows
from automl_pt.layouts.scan import Scan
from automl_pt.layouts.split_column import SplitColumn


@dataclass(frozen=True)
class _Item:
    line: int
    name: str
    label: str
    split: Split | None
    group: str | None


def open_table(path: Path, columns: TableColumns, *, follow_links: bool = False) -> LabeledImages:
    """Open a table whose paths are relative to its own folder; columns that are not named are guessed, with a note.

    An absolute path is accepted if it leads into that folder; with `follow_links` links may lead out of it. Labels
    are text, stripped. Raises NotLabeledDatasetError without a label column, InvalidDatasetError naming the lines for
    any other fault.
    """
    header, rows, row_notes = read_rows(path)
    chosen, splits, notes = find_columns(path, header, rows, columns)
    if not rows:
        raise InvalidDatasetError(
            "the table holds no images", given=f"{printable(path)}: no row", remedy="give a table with images"
        )
    notes = [*row_notes, *notes, *refuse_missing_labels(path, rows, chosen.label), *blank_groups(rows, chosen.group)]
    root = Path(os.path.realpath(path.parent))
    found, respelled = _spelled(root, list(_items(path, root, rows, chosen, splits, follow_links)))
    items, repeated = _once(path, found)
    _refuse_missing(path, root, items)
    data = assemble(
        Scan(root),
        [item.name for item in items],
        [item.label for item in items],
        splits=[item.split for item in items] if chosen.split else None,
        groups=[item.group or f"name:{item.name}" for item in items] if chosen.group else None,
        left_out=repeated,
    )
    again = [f"{len(repeated)} rows repeat an image"] if repeated else []
    return replace(data, notes=(*notes, *respelled, *again, *data.notes))


def _items(
    path: Path, root: Path, rows: Sequence[Row], columns: TableColumns, splits: SplitColumn | None, follow_links: bool
) -> Iterator[_Item]:
    assert columns.image is not None, "find_columns has chosen one"
    assert columns.label is not None, "find_columns has chosen one"
    _refuse_blank(path, rows, columns.image, columns.label)
    for line, cells in rows:
        yield _Item(
            line,
            _relative(path, root, cells[columns.image], line, follow_links),
            cells[columns.label],
            splits.splits.get(cells[splits.name]) if splits is not None else None,
            _group(cells[columns.group]) if columns.group else None,
        )


def _group(text: str) -> str | None:
    return f"group:{text}" if text and not is_nothing(text) else None


def _refuse_blank(path: Path, rows: Sequence[Row], image: str, label: str) -> None:
    unlabeled = [line for line, cells in rows if not cells[label]]
    if len(unlabeled) == len(rows):
        raise NotLabeledDatasetError(
            "no image of the table has a label, which training and validation need",
            given=f"{printable(path)}: nothing in column {printable(label)!r}",
            remedy="name another column with --label-column",
        )
    blank = sorted({*unlabeled, *(line for line, cells in rows if not cells[image])})
    if blank:
        raise InvalidDatasetError(
            "some rows of the table have no path or no label",
            given=f"{printable(path)}: {len(blank)} rows without, in lines {few(blank)}",
            remedy="fill them in or delete them",
        )


def _relative(path: Path, root: Path, text: str, line: int, follow_links: bool) -> str:
    """Return an image's name: its path relative to `root`, with slashes and without dots."""
    if "://" in text or "\0" in text or text.startswith("data:"):
        raise _refused(path, line, text, "is a URL, not a file")
    joined = os.path.normpath(root / text)
    name = os.path.relpath(joined, root)
    # the path as written must stay within the folder, and so must its resolved path unless links may be followed
    inside = follow_links or Path(os.path.realpath(joined)).is_relative_to(root)
    if not inside or name.startswith(".."):
        raise _refused(path, line, text, "leads out of the table's folder")
    return Path(name).as_posix()


def _refused(path: Path, line: int, text: str, why: str) -> InvalidDatasetError:
    return InvalidDatasetError(
        "the table names a file outside its own folder",
        given=f"{printable(path)}, line {line}: {printable(text)!r} {why}",
        remedy="put the table in a folder above all its images, and write paths relative to it",
    )


def _spelled(root: Path, items: Sequence[_Item]) -> tuple[list[_Item], list[str]]:
    """Rename each image to the spelling on disk, if that differs in Unicode form only."""
    names = as_on_disk(root, [item.name for item in items])
    other = sum(name != item.name for name, item in zip(names, items, strict=True))
    note = f"{counted(other, 'path')} of the table found under file names that differ in Unicode form only"
    pairs = zip(names, items, strict=True)
    return [replace(item, name=name) for name, item in pairs], [note] if other else []


def _once(path: Path, items: Sequence[_Item]) -> tuple[list[_Item], list[tuple[str, str]]]:
    """Keep each image's first row, sorted by name; identical repetitions are ignored, contradictions refused."""
    first: dict[str, _Item] = {}
    repeated: list[tuple[str, str]] = []
    for item in items:
        known = first.setdefault(item.name, item)
        if known is item:
            continue
        if replace(known, line=item.line) != item:
            raise InvalidDatasetError(
                "an image has two different labels, splits or groups",
                given=f"{printable(path)}, lines {known.line} and {item.line}: {printable(item.name)} with two",
                remedy="keep one of the two rows",
            )
        repeated.append((item.name, f"line {item.line} repeats line {known.line}"))
    return [first[name] for name in sorted(first)], repeated


def _refuse_missing(path: Path, root: Path, items: Sequence[_Item]) -> None:
    missing = [item for item in items if not os.path.isfile(root / item.name)]
    if missing:
        raise InvalidDatasetError(
            "images of the table do not exist",
            given=f"{printable(path)}: {len(missing)} of {len(items)} do not: "
            + few(f"{item.name} (line {item.line})" for item in missing),
            remedy=f"paths are relative to the table's folder, {printable(root)}; correct or delete the rows",
        )


def as_on_disk(root: Path, names: Sequence[str]) -> list[str]:
    """Return each name as spelled on disk below `root` if it differs in Unicode form only; others unchanged."""
    listed: dict[Path, dict[str, list[str]]] = {}
    return [
        name if name.isascii() or os.path.exists(root / name) else _respelled(root, name, listed) or name
        for name in names
    ]


def _respelled(root: Path, name: str, listed: dict[Path, dict[str, list[str]]]) -> str | None:
    folder, found = root, list[str]()
    for part in name.split("/"):
        if folder not in listed:
            listed[folder] = _listing(folder)
        same = listed[folder].get(normalize("NFC", part), [])
        if len(same) != 1 and part not in same:
            return None
        found.append(part if part in same else same[0])
        folder = folder / found[-1]
    return "/".join(found)


def _listing(folder: Path) -> dict[str, list[str]]:
    """Return the names in a folder by their composed form; empty if it is not a folder."""
    names: dict[str, list[str]] = {}
    if os.path.isdir(folder):
        for name in os.listdir(folder):
            names.setdefault(normalize("NFC", name), []).append(name)
    return names


#: lower-case texts that can only mean a missing value
_NOTHING = frozenset(("nan", "-nan", "<na>", "nat", "null", "<null>", "#n/a", "#na", "#value!", "#ref!", "1.#qnan"))
#: how Python and R write missing values; in other capitalisation these are words
_PERHAPS = frozenset(("None", "NA", "N/A", "NULL"))
_WORDS = frozenset(("none", "na", "n/a", "-", "--", "?", "missing", "undefined"))


def is_nothing(text: str) -> bool:
    """Return whether a cell's text can only mean a missing value."""
    return text.casefold() in _NOTHING or text in _PERHAPS


def refuse_missing_labels(path: Path, rows: Sequence[Row], label: str | None) -> list[str]:
    """Raise InvalidDatasetError for labels that mean a missing value; return a note on words that may mean one."""
    assert label is not None, "find_columns has chosen one"
    lines = [line for line, cells in rows if is_nothing(cells[label])]
    if lines:
        texts = sorted({cells[label] for _, cells in rows if is_nothing(cells[label])})
        raise InvalidDatasetError(
            f"labels such as {few(map(repr, texts))} may be missing values, or the name of a class",
            given=f"{printable(path)}: {counted(len(lines), 'row')} of column {printable(label)!r}, lines {few(lines)}",
            remedy="fill the labels in or delete the rows; rename the class if it is one",
        )
    words = Counter(cells[label] for _, cells in rows if cells[label].casefold() in _WORDS)
    return [f"{counted(count, 'row')} with the label {text!r}, used as a class" for text, count in words.items()]


def blank_groups(rows: Sequence[Row], group: str | None) -> list[str]:
    """Return a note on rows with a missing group; each is its own group."""
    count = 0 if group is None else sum(is_nothing(cells[group]) for _, cells in rows)
    return [f"{counted(count, 'row')} with no group in column {printable(group)!r}, each on its own"] if count else []
