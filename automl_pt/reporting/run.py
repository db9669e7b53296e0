"""Reads one run directory, finished or not, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from automl_pt.core.errors import StudyError
from automl_pt.core.json_reader import read_json_lines
from automl_pt.core.text import printable
from automl_pt.reporting.study import is_in_use
from automl_pt.study.store.study_files import read_object
from automl_pt.training.result import EpochResult


@dataclass(frozen=True)
class RunReport:
    """The state of a run: run.json and its epochs. `status` is why it ended, else `running` or `interrupted`."""

    directory: str
    status: str
    record: dict[str, Any]
    history: tuple[EpochResult, ...]

    @property
    def best(self) -> EpochResult | None:
        """Return the last epoch that was the best so far."""
        return next((result for result in reversed(self.history) if result.is_best), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        best = self.best
        return {
            "directory": self.directory,
            "status": self.status,
            "run": self.record,
            "epochs": [result.to_dict() for result in self.history],
            "best": best.to_dict() if best is not None else None,
        }


def is_run(path: Path) -> bool:
    """Say whether `path` is a run directory."""
    return (path / "run.json").is_file()


def read_run(directory: Path) -> RunReport:
    """Return the run in `directory`; raise StudyError for damaged files."""
    return replace(read_head(directory), history=tuple(read_history(directory / "history.jsonl")))


def read_head(directory: Path) -> RunReport:
    """Return the run without its epochs; raise StudyError when it is damaged."""
    record = read_object(directory / "run.json")
    if not isinstance(record.get("config", {}), dict):
        raise _damaged(directory / "run.json", "config is no object")
    # a resumed run keeps the reason of its last end until the next
    status = "running" if is_in_use(directory) else record.get("reason") or "interrupted"
    return RunReport(str(directory), str(status), record, ())


def wall_seconds(record: Mapping[str, Any]) -> float | None:
    """Return the seconds from a run's first start to its end, pauses included; None where its record lacks either."""
    try:
        return (datetime.fromisoformat(record["ended"]) - datetime.fromisoformat(record["started"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None


def read_history(path: Path) -> list[EpochResult]:
    """Return the epochs of a history.jsonl, none for a missing file; raise StudyError for a damaged one."""
    try:
        return [EpochResult.from_dict(values) for values in read_json_lines(path)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _damaged(path: Path, what: str) -> StudyError:
    return StudyError(
        "a file of the run is damaged",
        given=printable(f"{path}: {what}")[:300],
        remedy="restore the file from a copy, or train again",
    )
