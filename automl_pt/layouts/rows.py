"""Reads the rows of a CSV or parquet file as text."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automl_pt.errors import InstallationError, InvalidDatasetError
from automl_pt.text import few, printable

#: the line in the file (a parquet file's rows count from 1) and the cells by column
Row = tuple[int, dict[str, str]]

_DELIMITERS = ",;\t|"


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Return the header and the rows that are not blank, cells without space around them.

    A CSV file is UTF-8, with or without a byte order mark; its delimiter is the one of `, ; tab |` that its header has
    most of. Raises InvalidDatasetError naming the line, InstallationError for parquet without pyarrow.
    """
    header, rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise InvalidDatasetError(
            "a table's columns have different names",
            given=f"{printable(path)}: {few(twice)} twice",
            remedy="rename one of them",
        )
    return header, [(line, dict(zip(header, cells, strict=True))) for line, cells in rows]


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _invalid(path, line, "not UTF-8 text", "save it as UTF-8") from error
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    header: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    start = 1
    try:
        for cells in lines:
            cells = [cell.strip() for cell in cells]
            if not header:
                header = cells
            elif any(cells):
                if len(cells) != len(header):
                    why = f"{len(cells)} cells, where the header has {len(header)}"
                    raise _invalid(path, start, why, "correct it; quote cells that hold the delimiter")
                rows.append((start, cells))
            start = lines.line_num + 1
    except csv.Error as error:
        raise _invalid(path, start, str(error), "correct the quotes of this line") from error
    return header, rows


def _delimiter(text: str) -> str:
    header = text.partition("\n")[0]
    return max(_DELIMITERS, key=header.count)


def _invalid(path: Path, line: int, why: str, remedy: str) -> InvalidDatasetError:
    return InvalidDatasetError(
        "a table must be readable", given=f"{printable(path)}, line {line}: {why}", remedy=remedy
    )


def _read_parquet(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InstallationError(
            "a parquet table needs pyarrow", given=printable(path), remedy="pip install 'automl-pt[parquet]'"
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
    """Return whether a column's cells can be told as text: not nested, and no bytes."""
    from pyarrow import types

    return not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()
