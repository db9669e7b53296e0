"""Reads the JSON files of a study's folder: an object, or an empty one for a missing file, or StudyError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automl_pt.core.errors import StudyError
from automl_pt.core.json_reader import read_json
from automl_pt.core.text import printable
from automl_pt.plugins.provenance import recorded


def read_object(path: Path) -> dict[str, Any]:
    """Return a JSON object; empty for a missing file; raise StudyError for anything else."""
    try:
        value = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise damaged(path, "it is not an object")
    return value


def plugins_of(path: Path) -> list[dict[str, Any]]:
    """Return the plugins in a study.json; raise StudyError if it is damaged."""
    try:
        return recorded(read_object(path))
    except ValueError as error:
        raise damaged(path, str(error)) from error


def image_counts(directory: Path, number: int) -> dict[str, int]:
    """Return the images of each split, from a trial's record; empty if it has none."""
    try:
        data = read_object(directory / "trials" / str(number) / "run.json").get("data")
    except StudyError:
        return {}
    counts = data.get("counts") if isinstance(data, dict) else None
    if not isinstance(counts, dict):
        return {}
    return {str(split): count for split, count in counts.items() if isinstance(count, int)}


def damaged(path: Path, reason: str) -> StudyError:
    """Return the error that explains why a file of a study cannot be used."""
    return StudyError(
        "a file of the study is damaged",
        given=printable(f"{path}: {reason}"),
        remedy="restore the file from a copy, or start a new study",
    )
