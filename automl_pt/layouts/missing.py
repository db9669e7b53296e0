"""Recognises cells that mean a missing value: "nan", "None" and "#N/A" are neither classes nor groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import counted, few, printable
from automl_pt.layouts.rows import Row

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
