"""Plain columns of text, the same in a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

import click


def print_columns(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a header, each column as wide as its widest cell."""
    from automl_pt.core.text import printable

    cells = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    click.echo("\n".join(lines))
