"""The sections of a report as plain values: what `report --json` prints, and what the page is drawn from.

A section that cannot be had is `{"missing": why}`, so that a report of a damaged, unfinished or failed study is still a
report.
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
    """Return a section that says why it is not there."""
    return {"missing": why}


def attempt(make: Callable[[], Section]) -> Section:
    """Return what `make` gives, or a section that says why it could not."""
    try:
        return make()
    except AutomlError as error:
        return missing(why(error))


def why(error: AutomlError) -> str:
    """Say an error in one sentence; of a plugin that is not loaded also how to name it."""
    given = " ".join(part.strip() for part in error.given.splitlines() if part.strip())
    how = f" To do: {error.remedy}." if "--plugin" in error.remedy else ""
    return f"{error.rule[:1].upper()}{error.rule[1:]}; given: {given}.{how}"
