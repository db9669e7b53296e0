"""Finds the column of a table that states train, val or test, and reads it; refuses ambiguous columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.core.text import counted, few, printable
from automl_pt.dataset import Split
from automl_pt.layouts.rows import Row
from automl_pt.layouts.split_words import Kind, certain, meaning, resolved, together

#: usual names of split columns, without case, space, dash and underscore; the first two are unambiguous
USUAL = (
    *("split", "partition", "set", "subset", "usage", "phase", "fold", "folds", "kfold", "cv", "dataset"),
    *("datasplit", "splits", "splitname", "splitset"),
)
_CERTAIN = ("split", "partition", "datasplit", "splits", "splitname")
_TRUE = frozenset(("true", "yes", "t", "y", "1", "1.0"))
_FALSE = frozenset(("false", "no", "f", "n", "0", "0.0"))
#: texts that need no note
_FAMILIAR = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
#: a column with more distinct cells is not one of splits
_MOST = 100
_REMEDY = "write train, val or test (or leave the cell blank), or name another column with --split-column"


@dataclass(frozen=True)
class SplitColumn:
    """A column with the split that each of its texts means; images with blank cells are split automatically."""

    name: str
    splits: dict[str, Split]

    def note(self, rows: Sequence[Row]) -> list[str]:
        """Return notes on texts whose reading is not obvious, and on how many cells are blank."""
        unusual = sorted(text for text in self.splits if text.casefold() not in _FAMILIAR)
        odd = [f"{text!r} is {self.splits[text]}" for text in unusual]
        notes = [f"splits in column {printable(self.name)!r}: {few(odd)}"] if odd else []
        blank = sum(not cells[self.name] for _, cells in rows)
        if blank and self.splits:
            notes.append(
                f"{counted(blank, 'row')} with nothing in column {printable(self.name)!r}: used for training, or for a "
                "split that the table lacks"
            )
        return notes


def read_split_column(path: Path, column: str, rows: Sequence[Row]) -> SplitColumn:
    """Read the column that the user named; raise InvalidDatasetError for texts that are not splits."""
    texts = _texts(column, rows)
    kinds = _kinds(texts)
    if len(kinds) == len(texts):
        return SplitColumn(column, resolved(kinds, f"{printable(path)}, column {printable(column)!r}"))
    yes_or_no = _yes_or_no(column, texts)
    if yes_or_no in ("val", "test"):
        return _of_yes_or_no(column, texts, yes_or_no)
    raise _unread(path, column, rows, kinds)


def find_split_column(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> tuple[SplitColumn | None, list[str]]:
    """Return the column among `columns` that holds splits, if any, and notes on others that look like one.

    Raises InvalidDatasetError if a column may state the split but is ambiguous.
    """
    found: list[str] = []
    notes: list[str] = []
    for column in columns:
        texts = _texts(column, rows)
        kinds, usual = _kinds(texts), _plain(column) in USUAL
        if not texts or (len(texts) > _MOST and not usual):
            continue
        several = "train" in kinds.values() and len(set(kinds.values())) > 1
        if len(kinds) == len(texts) and (usual or several):
            found.append(column)
        elif several or (usual and any(map(meaning, texts))) or _plain(column) in _CERTAIN:
            raise _unread(path, column, rows, kinds)
        elif usual:
            notes.append(f"column {printable(column)!r} is not used for splits: it holds {few(sorted(texts), 3)}")
    if found:
        best = _best(path, found)
        unused = [f"column {printable(other)!r} holds splits too and is not used" for other in found if other != best]
        return read_split_column(path, best, rows), [*notes, *unused]
    return _find_yes_or_no(path, columns, rows), notes


def _find_yes_or_no(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> SplitColumn | None:
    """Return the one yes-or-no column, such as is_val or is_test, where yes states the split."""
    kinds = {column: kind for column in columns if (kind := _yes_or_no(column, _texts(column, rows))) is not None}
    if not kinds:
        return None
    column, kind = next(iter(kinds.items()))
    given = f"{printable(path)}: {few(map(repr, kinds))}"
    if len(kinds) > 1:
        raise _unclear("several columns of the table state the split", given)
    if kind not in ("val", "test"):
        raise _unclear(f"rows that are not for {kind} may be for validation or test", given)
    if not _plain(column).startswith("is") or _plain(column) == "isvalid":
        rule = f"the yes-or-no column {printable(column)!r} may state that a row is for {kind}, or something else"
        raise _unclear(rule, given, f"give --split-column {printable(column)} in the first case, else rename it")
    return _of_yes_or_no(column, _texts(column, rows), kind)


def _unclear(rule: str, given: str, remedy: str | None = None) -> InvalidDatasetError:
    best = "add one column called split of train, val and test; rename or delete the column if it means something else"
    return InvalidDatasetError(rule, given=given, remedy=remedy or best)


def _of_yes_or_no(column: str, texts: Sequence[str], yes: Split) -> SplitColumn:
    return SplitColumn(column, {text: yes if text.casefold() in _TRUE else "train" for text in texts})


def _yes_or_no(column: str, texts: Sequence[str]) -> Kind | None:
    """Return the split that yes means in a yes-or-no column, by the column's name; None for other columns."""
    if not texts or not all(text.casefold() in _TRUE | _FALSE for text in texts):
        return None
    kind = certain(_plain(column).removeprefix("is").removeprefix("in"))
    return kind if kind in ("train", "val", "test", "either") else None


def _kinds(texts: Sequence[str]) -> dict[str, Kind]:
    return {text: kind for text, kind in together(texts).items() if kind not in ("fold", "unlabelled")}


def _texts(column: str, rows: Sequence[Row]) -> list[str]:
    return sorted({cells[column] for _, cells in rows} - {""})


def _plain(column: str) -> str:
    return "".join(character for character in column.casefold() if character not in " -_")


def _best(path: Path, found: Sequence[str]) -> str:
    """Return the column with the most usual name; raise InvalidDatasetError if none has one."""
    usual = sorted((column for column in found if _plain(column) in USUAL), key=lambda name: USUAL.index(_plain(name)))
    if not usual and len(found) > 1:
        given = f"{printable(path)}: {few(map(repr, found))}"
        raise _unclear("several columns of the table state the split", given, "name one with --split-column")
    return [*usual, *found][0]


def _unread(path: Path, column: str, rows: Sequence[Row], kinds: dict[str, Kind]) -> InvalidDatasetError:
    wrong = {text for text in _texts(column, rows) if text not in kinds}
    lines = [line for line, cells in rows if cells[column] in wrong]
    first = next(cells[column] for _, cells in rows if cells[column] in wrong)
    named = "" if len(wrong) == 1 else f"; it holds {few(sorted(wrong))} beside {few(sorted(kinds)) or 'nothing else'}"
    return InvalidDatasetError(
        f"column {printable(column)!r} may mean splits or something else: not all its cells are train, val or test",
        given=f"{printable(path)}, line {lines[0]}: {printable(first)!r}, {counted(len(lines), 'row')} in all{named}",
        remedy=f"{_REMEDY}; rename the column if it means something else",
    )
