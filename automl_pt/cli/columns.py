"""Plain columns and lines of text: as wide as needed in a pipe, and at most as wide as a terminal."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence

import click

GAP = 2
#: characters that the last column keeps where a terminal is narrow
SHORTEST = 16
#: the label that opens a line, below whose text the line goes on
_LABEL = re.compile(r" *[a-z][a-z -]{0,12}: +| +")


def print_columns(header: Sequence[str], rows: Sequence[Sequence[object]], *, drop: Sequence[str] = ()) -> None:
    """Print rows under a header, each column as wide as its widest cell.

    On a terminal that is too narrow the columns of `drop` are removed, the first of them first, and then the last
    column is shortened; a note on standard error names what was removed.
    """
    from automl_pt.core.text import printable

    cells = [[printable(cell) for cell in row] for row in (header, *rows)]
    width = _width()
    dropped = list[str]()
    while width is not None and _needed(cells) > width and len(dropped) < len(drop):
        dropped.append(drop[len(dropped)])
        place = cells[0].index(dropped[-1])
        cells = [row[:place] + row[place + 1 :] for row in cells]
    if width is not None and _needed(cells) > width:
        cells = [[*row[:-1], _cut(row[-1], _last(cells, width))] for row in cells]
    widths = _widths(cells)
    lines = (
        (" " * GAP).join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in cells
    )
    click.echo("\n".join(lines))
    if dropped and sys.stdout.isatty():
        click.echo(f"not shown: {', '.join(dropped)}; a wider terminal or --json shows all", err=True)


def _width() -> int | None:
    """Return the columns of the terminal, or of COLUMNS; None where the output may be as wide as it needs."""
    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return shutil.get_terminal_size().columns if known else None


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]


def _needed(cells: Sequence[Sequence[str]]) -> int:
    widths = _widths(cells)
    return sum(widths) + GAP * (len(widths) - 1)


def _last(cells: Sequence[Sequence[str]], width: int) -> int:
    """Return the width that remains for the last column."""
    *before, _ = _widths(cells)
    return max(SHORTEST, width - sum(before) - GAP * len(before))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"


def folded(line: str, width: int) -> str:
    """Break a line between words where it is wider; the rest is indented as its text; a long word stays whole."""
    from rich.cells import cell_len

    if cell_len(line) <= width:
        return line
    label = _LABEL.match(line)
    start = label[0] if label else ""
    indent = " " * (len(start) or 2)
    lines, first = [start], True
    for word in line[len(start) :].split(" "):
        if not first and cell_len(f"{lines[-1]} {word}") > width:
            lines.append(indent)
            first = True
        lines[-1] += word if first else f" {word}"
        first = False
    return "\n".join(lines)


def say(message: str, *, err: bool = False) -> None:
    """Print lines; on a terminal those that are too long are folded. Nothing in them is markup."""
    if (sys.stderr if err else sys.stdout).isatty():
        width = shutil.get_terminal_size().columns
        message = "\n".join(folded(line, width) for line in message.split("\n"))
    click.echo(message, err=err)
