"""Options and patterns shared by the commands that list names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def plugin_option(function: F) -> F:
    """Add `--plugin FILE`, which may be given several times, as the parameter `plugins`."""
    option = click.option(
        "--plugin", "plugins", multiple=True, metavar="FILE", help="Plugin file to load. May be given several times."
    )
    return option(function)


def json_option(function: F) -> F:
    """Add `--json` as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def matching(pattern: str | None, names: Iterable[str]) -> list[str]:
    """Return the names that fit a glob, or contain the pattern when it has none of * ? [, in any case."""
    if pattern is None:
        return list(names)
    wanted = pattern.lower()
    if any(sign in pattern for sign in "*?["):
        return [name for name in names if fnmatchcase(name.lower(), wanted)]
    return [name for name in names if wanted in name.lower()]
