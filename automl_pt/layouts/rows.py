"""Reads the rows of a CSV or parquet file as text."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automl_pt.core.errors import InstallationError, InvalidDatasetError
from automl_pt.core.installation import how_to_install
from automl_pt.core.text import few, printable
from automl_pt.images.read import format_of
from automl_pt.layouts.left_out import NOT_READ, suffix

#: the line in the file (rows of a parquet file count from 1) and the cells by column
Row = tuple[int, dict[str, str]]

_DELIMITERS = ",;\t|"
#: a first line by which a spreadsheet declares the delimiter
_DECLARED = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)


def read_rows(path: Path) -> tuple[list[str], list[Row], list[str]]:
    """Return the header, the rows that are not blank, with cells stripped, and notes.

    A CSV file is UTF-8, or UTF-16 with a byte order mark; its delimiter is the one of `, ; tab |` most frequent in its
    first line. If the first line names an image there is no header: the columns are called "column 1" and so on.
    Raises InvalidDatasetError naming the line, InstallationError for parquet without pyarrow.
    """
    is_parquet = path.suffix.lower() == ".parquet"
    header, rows = _read_parquet(path) if is_parquet else _read_csv(path)
    notes: list[str] = []
    if images := [cell for cell in header if format_of(suffix(cell)) or suffix(cell) in NOT_READ]:
        if is_parquet:
            raise _without_header(path, images)
        rows = [(1, header), *rows]
        header = [f"column {number}" for number in range(1, len(header) + 1)]
        notes = [f"no header: the first line names the image {printable(images[0])!r} and is read as a row"]
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise InvalidDatasetError(
            "two columns of the table have the same name",
            given=f"{printable(path)}: {few(twice)} twice",
            remedy="rename one of them",
        )
    return header, [(line, dict(zip(header, cells, strict=True))) for line, cells in rows], notes


def _without_header(path: Path, images: Sequence[str]) -> InvalidDatasetError:
    return InvalidDatasetError(
        "the parquet table's column names look like its first row",
        given=f"{printable(path)}: a column is called {printable(images[0])!r}, like an image",
        remedy="write the table again with column names, and its first row as a row",
    )


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _invalid(path, line, f"not UTF-{16 if wide else 8} text", "save it as UTF-8") from error
    declared = _DECLARED.match(text)
    text = text if declared is None else text[declared.end() :]
    delimiter = _delimiter(text) if declared is None else declared[1]
    return _read_lines(path, text, delimiter, before=0 if declared is None else 1)


def _read_lines(path: Path, text: str, delimiter: str, *, before: int) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the first line that is not blank, and the others; `before` lines of the file precede `text`."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    start = 1 + before
    try:
        for cells in lines:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                pass
            elif not header:
                header = cells
            else:
                if len(cells) != len(header):
                    why = f"{len(cells)} cells, but the header has {len(header)}"
                    raise _invalid(path, start, why, "correct it; quote cells that contain the delimiter")
                rows.append((start, cells))
            start = lines.line_num + 1 + before
    except csv.Error as error:
        raise _invalid(path, start, str(error), "correct the quotes of this line") from error
    return header, rows


def _delimiter(text: str) -> str:
    header = text.lstrip().partition("\n")[0]
    return max(_DELIMITERS, key=header.count)


def _invalid(path: Path, line: int, why: str, remedy: str) -> InvalidDatasetError:
    return InvalidDatasetError(
        "the table is not readable", given=f"{printable(path)}, line {line}: {why}", remedy=remedy
    )


def _read_parquet(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InstallationError(
            "reading a parquet table requires pyarrow", given=printable(path), remedy=how_to_install("parquet")
        ) from error
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise _invalid(path, 1, printable(error)[:200], "write it again") from error
    plain = [name for name, kind in zip(table.column_names, table.schema.types, strict=True) if _is_plain(kind)]
    columns: Sequence[list[Any]] = [table.column(name).to_pylist() for name in plain]
    rows = [[_text(cell) for cell in cells] for cells in zip(*columns, strict=True)]
    return plain, [(line, cells) for line, cells in enumerate(rows, 1) if any(cells)]


def _is_plain(kind: Any) -> bool:
    """Return whether a column's cells can be shown as text: neither nested nor bytes."""
    from pyarrow import types

    return not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _text(cell: object) -> str:
    """Return a cell as text; null and NaN, which mean a missing value, are blank."""
    return "" if cell is None or cell != cell else str(cell).strip()
