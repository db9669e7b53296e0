"""Shows file and class names safely, because they are untrusted text."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

#: categories that move the cursor, hide, reverse or cannot be encoded: control, format, surrogate, private, unassigned
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

#: in a URL: the password between the user's name and the last @, and values of secret parameters in the query
_PASSWORD = re.compile(r"(://[^:/@]*):.*@", re.DOTALL)
_SECRET = re.compile(r"([?&][^=&]*(?:pass|secret)[^=&]*=)[^&]*", re.IGNORECASE)


def without_password(argument: str) -> str:
    """Hide the passwords of a URL in a command-line argument; return anything else unchanged."""
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1:***@", argument)) if "://" in argument else argument


def printable(text: object) -> str:
    r"""Return `text` on one line, with unprintable characters as escapes such as \n, \x1b or \udcff."""
    return "".join(_escaped(character) for character in str(text))


def shown_path(path: str | Path) -> str:
    """Show a path on one line, relative to the working folder where it is below it."""
    here = os.getcwd()
    return printable(os.path.relpath(path, here) if os.path.isabs(path) and Path(path).is_relative_to(here) else path)


def few(items: Iterable[object], limit: int = 5) -> str:
    """Join the first `limit` items, printable, and state how many more there are."""
    shown = [printable(item) for item in items]
    rest = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {rest} more" if rest > 0 else "")


def one_line(kind: str, parts: Mapping[str, object]) -> str:
    """Return `KIND(name=value, ...)`, long texts and lists cut and all escaped; None and what is empty is not shown."""
    shown = (f"{printable(cut(name))}={_brief(value)}" for name, value in parts.items() if value not in (None, "", ()))
    return f"{kind}({', '.join(shown)})"


def cut(text: str, limit: int = 40) -> str:
    """Return a text of at most `limit` characters; the end of a longer one is replaced by an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _brief(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple | list):
        first = ", ".join(map(_brief, value[:3]))
        return f"({first})" if len(value) <= 3 else f"({first}, … {len(value)} in all)"
    return repr(cut(value)) if isinstance(value, str) else printable(cut(str(value)))


def counted(number: float, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is one: 1 trial, 2 trials, 0.33 epochs."""
    shown = f"{number:.0f}" if number == int(number) else f"{number:.2g}"
    return f"{shown} {noun}" if number == 1 else f"{shown} {noun}s"


def _escaped(character: str) -> str:
    if unicodedata.category(character) in _UNSEEN:
        return character.encode("unicode_escape").decode("ascii")
    return character
