"""The sections of a report as plain values: the output of `report --json`, and the source of the page.

A section that is not available is `{"missing": why}`, so that a damaged, unfinished or failed study has a report, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from automl_pt.core.errors import AutomlError

Section = dict[str, Any]


@dataclass(frozen=True)
class Content:
    """A report: plain values for JSON, and the pictures they name as data URIs."""

    values: dict[str, Any]
    pictures: dict[str, str]


def missing(why: str) -> Section:
    """Return a section that states why it is not available."""
    return {"missing": why}


def attempt(make: Callable[[], Section]) -> Section:
    """Return the section of `make`; after an error, one that states it."""
    try:
        return make()
    except AutomlError as error:
        return missing(why(error))


def why(error: AutomlError) -> str:
    """Return an error as one sentence; if a plugin is not loaded, with how to name it."""
    given = " ".join(part.strip() for part in error.given.splitlines() if part.strip())
    how = f" To do: {error.remedy}." if "--plugin" in error.remedy else ""
    return f"{error.rule[:1].upper()}{error.rule[1:]}; given: {given}.{how}"
