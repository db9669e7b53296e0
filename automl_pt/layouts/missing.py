"""Cells of a table by which programs say that nothing is there: "nan", "None", "#N/A" are no classes and no groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import counted, few, printable
from automl_pt.layouts.rows import Row

#: in small letters: nothing else is meant by them
_NOTHING = frozenset(("nan", "-nan", "<na>", "nat", "null", "<null>", "#n/a", "#na", "#value!", "#ref!", "1.#qnan"))
#: as Python and R write what is missing; in other letters they are words
_PERHAPS = frozenset(("None", "NA", "N/A", "NULL"))
_WORDS = frozenset(("none", "na", "n/a", "-", "--", "?", "missing", "undefined"))


def is_nothing(text: str) -> bool:
    """Return whether a cell's text says, by itself, that nothing is there."""
    return text.casefold() in _NOTHING or text in _PERHAPS


def refuse_missing_labels(path: Path, rows: Sequence[Row], label: str | None) -> list[str]:
    """Raise InvalidDatasetError for labels that say nothing is there; return a note on words that may."""
    assert label is not None, "find_columns has chosen"
    lines = [line for line, cells in rows if is_nothing(cells[label])]
    if lines:
        texts = sorted({cells[label] for _, cells in rows if is_nothing(cells[label])})
        raise InvalidDatasetError(
            f"labels such as {few(map(repr, texts))} may say that a label is missing, or be the name of a class",
            given=f"{printable(path)}: {counted(len(lines), 'row')} of column {printable(label)!r}, lines {few(lines)}",
            remedy="fill the labels in or delete the rows; call the class otherwise if it is one",
        )
    words = Counter(cells[label] for _, cells in rows if cells[label].casefold() in _WORDS)
    return [f"{counted(count, 'row')} with the label {text!r}, taken for a class" for text, count in words.items()]


def blank_groups(rows: Sequence[Row], group: str | None) -> list[str]:
    """Return a note on rows whose group says that there is none; they stand alone."""
    count = 0 if group is None else sum(is_nothing(cells[group]) for _, cells in rows)
    return [f"{counted(count, 'row')} with no group in column {printable(group)!r} stand alone"] if count else []
