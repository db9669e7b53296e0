"""Explains from the files on disk why a folder of a run or a search holds no model.

The files may come from other people, so values are only shown, and damaged ones are ignored.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_pt.core.files import read_json
from automl_pt.core.text import counted, printable

#: characters shown of a text from outside
SHOWN = 300


@dataclass(frozen=True)
class Absence:
    """Why a folder holds no model, as one sentence without a full stop, and what to do next."""

    what: str
    remedy: str


def why_no_model(path: Path) -> Absence | None:
    """Explain why the run or study at `path`, or the study in its parent, has no model; None if unknown."""
    for folder in (path, path.parent) if path.name == "model" else (path,):
        if os.path.isfile(folder / "run.json"):
            return _of_run(folder)
        if os.path.isfile(folder / "study.json"):
            return _of_study(folder)
        if os.path.isfile(folder / "study.toml"):
            remedy = f"`automl-pt search --config {printable(folder / 'study.toml')}` starts it"
            return Absence("the search described here has not been started", remedy)
    return None


def diverged(epoch: int) -> str:
    """Describe a divergence."""
    return f"diverged in epoch {epoch}, because its loss was not finite"


def of_trials(trials: Sequence[tuple[str, str]], stopped: str) -> Absence:
    """Explain why a search with trials of these states and reasons has no model; `stopped` is why it ended."""
    failed = [reason for state, reason in trials if state == "FAIL"]
    lost = [reason for _, reason in trials if reason == "diverged"]
    every = f"all {len(trials)} trials" if len(trials) > 1 else "the only trial"
    if failed and len(failed) == len(trials):
        reason, times = Counter(failed).most_common(1)[0]
        text = reason.removeprefix("failed: ")[:SHOWN]
        what = f"{every} failed" + (f", {times} of them with: {text}" if len(trials) > 1 else f": {text}")
        return Absence(what, "run one of them alone with `automl-pt train` and `--traceback` to see where it fails")
    if lost and len(lost) == len(trials):
        what = f"{every} diverged, because the loss was not finite"
        return Absence(what, "search lower learning rates, such as --lr 1e-6:1e-3, under another --name")
    return _unfinished(len(trials), len(failed), len(lost), stopped)


def _unfinished(trials: int, failed: int, lost: int, stopped: str) -> Absence:
    """Explain why a search ended before any of its trials had finished an epoch."""
    ends = {"timeout": "the time limit was reached", "interrupted": "it was interrupted"}
    end = ends.get(stopped, "it ended")
    if not trials:
        what = f"{end} before the first trial started"
    else:
        other = trials - failed - lost
        parts = [f"{number} {verb}" for number, verb in ((failed, "failed"), (lost, "diverged")) if number]
        parts += [f"{other} had not finished an epoch"] if other else []
        what = f"{end}, and of {counted(trials, 'trial')} {', '.join(parts)}"
    more = " with a larger --timeout" if stopped == "timeout" else ""
    return Absence(what, f"the same `automl-pt search` command{more} resumes it")


def _of_run(folder: Path) -> Absence | None:
    record = _object(folder / "run.json")
    reason, error = record.get("reason"), record.get("error")
    if (study := _study_of(folder)) is not None:
        what = f"this is trial {printable(folder.name)} of a search, which keeps the weights of its best trials only"
        return Absence(what, f"name the study, {printable(study)}, or search with a larger --keep-models")
    if reason == "diverged":
        return Absence(f"the run {diverged(_epochs(folder))}", "train again with a lower --lr, into another --output")
    if reason == "failed":
        what = f"the run failed before it saved a model: {printable(error)[:SHOWN]}"
        return Absence(what, "correct what the error names, and run the same `automl-pt train` command again")
    if reason in (None, "interrupted"):
        what = "the run was stopped before its first epoch ended, or is still in it"
        return Absence(what, "the same `automl-pt train` command resumes it")
    return None


def _study_of(folder: Path) -> Path | None:
    """Return the study that a run directory belongs to as a trial; None if it is not a trial's."""
    study = folder.parent.parent
    return study if folder.parent.name == "trials" and os.path.isfile(study / "study.json") else None


def _of_study(folder: Path) -> Absence | None:
    result = _object(folder / "result.json")
    if not result:
        what = "the search here has not ended, and no trial has saved a model yet"
        return Absence(what, "the same `automl-pt search` command resumes it")
    if result.get("model") is not None:
        return None
    trials = result.get("trials")
    found = [trial for trial in trials if isinstance(trial, Mapping)] if isinstance(trials, list) else []
    states = [(printable(trial.get("state")), printable(trial.get("reason"))) for trial in found]
    absence = of_trials(states, str(result.get("stopped")))
    return Absence(f"in this search {absence.what}", absence.remedy)


def _epochs(folder: Path) -> int:
    """Return the last epoch in a run's history; 1 if it cannot be read."""
    try:
        return max(1, len((folder / "history.jsonl").read_bytes().splitlines()))
    except OSError:
        return 1


def _object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty if there is none or it cannot be read."""
    try:
        value = read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
