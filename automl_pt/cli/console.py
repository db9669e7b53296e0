"""Where tables are printed: as wide as the terminal, or as COLUMNS, or as wide as needed in a file or pipe."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.markup import escape

from automl_pt.core.text import printable

#: columns of an output without a known width; a table uses what it needs of them
WIDE = 200


def stdout() -> Console:
    """Return the console for a command's answer."""
    return Console(highlight=False, width=None if has_width() else WIDE)


def has_width() -> bool:
    """Say whether a width is known: that of a terminal, or the one that COLUMNS names."""
    return sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()


def text(value: object) -> str:
    """Show text from data: on one line, without control characters, and not as markup."""
    return escape(printable(value))
