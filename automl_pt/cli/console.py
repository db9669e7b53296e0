"""Where tables are printed: as wide as the terminal, or as COLUMNS, or as wide as needed in a file or pipe."""

from __future__ import annotations

import os
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape

from automl_pt.cli.columns import folded
from automl_pt.core.text import printable

#: columns of an output without a known width; a table uses what it needs of them
WIDE = 200


class Lines(Console):
    """A console on which a line that is too long goes on below its text, broken between words."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `Console.print`; a single text is folded to the width where one is known."""
        if len(objects) == 1 and isinstance(objects[0], str) and has_width():
            objects = ("\n".join(folded(line, self.width) for line in objects[0].split("\n")),)
            options["soft_wrap"] = True
        super().print(*objects, **options)


def stdout() -> Console:
    """Return the console for a command's answer."""
    return Lines(highlight=False, width=None if has_width() else WIDE)


def has_width() -> bool:
    """Say whether a width is known: that of a terminal, or the one that COLUMNS names."""
    return sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()


def text(value: object) -> str:
    """Show text from data: on one line, without control characters, and not as markup."""
    return escape(printable(value))
