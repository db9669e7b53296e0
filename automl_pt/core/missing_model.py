"""Why a folder of a run or a search holds no model, told from what is on disk, for every command that looks for one.

Everything read here may come from a stranger: it is only shown, and whatever is damaged is simply not told.
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

#: more of a foreign text is not shown
SHOWN = 300


@dataclass(frozen=True)
class Absence:
    """What happened in a folder that holds no model, in one sentence without a full stop, and what to do next."""

    what: str
    remedy: str


def why_no_model(path: Path) -> Absence | None:
    """Say why the run or study at `path`, or the study whose model it would be, left none; None where nothing tells."""
    for folder in (path, path.parent) if path.name == "model" else (path,):
        if os.path.isfile(folder / "run.json"):
            return _of_run(folder)
        if os.path.isfile(folder / "study.json"):
            return _of_study(folder)
        if os.path.isfile(folder / "study.toml"):
            remedy = f"`automl-pt search --config {printable(folder / 'study.toml')}` begins it"
            return Absence("the search described here has not been started", remedy)
    return None


def diverged(epoch: int) -> str:
    """Say what a divergence is."""
    return f"diverged in epoch {epoch}, because its loss was not finite"


def of_trials(trials: Sequence[tuple[str, str]], stopped: str) -> Absence:
    """Say why a search whose trials have these states and reasons left no model; `stopped` is why it ended."""
    failed = [reason for state, reason in trials if state == "FAIL"]
    lost = [reason for _, reason in trials if reason == "diverged"]
    every = f"all {len(trials)} trials" if len(trials) > 1 else "the only trial"
    if failed and len(failed) == len(trials):
        reason, times = Counter(failed).most_common(1)[0]
        told = reason.removeprefix("failed: ")[:SHOWN]
        what = f"{every} failed" + (f", {times} of them with: {told}" if len(trials) > 1 else f": {told}")
        return Absence(what, "run one of them by itself with `automl-pt train` and `--traceback` to see where it fails")
    if lost and len(lost) == len(trials):
        what = f"{every} diverged, because the loss was not finite"
        return Absence(what, "search lower learning rates, such as --lr 1e-6:1e-3, under another --name")
    return _unfinished(len(trials), len(failed), len(lost), stopped)


def _unfinished(trials: int, failed: int, lost: int, stopped: str) -> Absence:
    """Say why a search ended before any of its trials had come to the end of an epoch."""
    ends = {"timeout": "the time was up", "interrupted": "it was interrupted"}
    end = ends.get(stopped, "it ended")
    if not trials:
        what = f"{end} before the first trial had begun"
    else:
        other = trials - failed - lost
        parts = [f"{number} {verb}" for number, verb in ((failed, "failed"), (lost, "diverged")) if number]
        parts += [f"{other} had not come to the end of an epoch"] if other else []
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
        what = f"the run failed before it left a model: {printable(error)[:SHOWN]}"
        return Absence(what, "correct what the error names, and run the same `automl-pt train` command again")
    if reason in (None, "interrupted"):
        what = "the run was stopped before its first epoch had ended, or is still in it"
        return Absence(what, "the same `automl-pt train` command resumes it")
    return None


def _study_of(folder: Path) -> Path | None:
    """Return the study whose trial a run directory is; None where it is none's."""
    study = folder.parent.parent
    return study if folder.parent.name == "trials" and os.path.isfile(study / "study.json") else None


def _of_study(folder: Path) -> Absence | None:
    result = _object(folder / "result.json")
    if not result:
        what = "the search here has not ended, and no trial has kept a model so far"
        return Absence(what, "the same `automl-pt search` command resumes it")
    if result.get("model") is not None:
        return None
    trials = result.get("trials")
    found = [trial for trial in trials if isinstance(trial, Mapping)] if isinstance(trials, list) else []
    told = [(printable(trial.get("state")), printable(trial.get("reason"))) for trial in found]
    absence = of_trials(told, str(result.get("stopped")))
    return Absence(f"in this search {absence.what}", absence.remedy)


def _epochs(folder: Path) -> int:
    """Return the number of the last epoch that a run's history tells of; 1 where it cannot be read."""
    try:
        return max(1, len((folder / "history.jsonl").read_bytes().splitlines()))
    except OSError:
        return 1


def _object(path: Path) -> dict[str, Any]:
    """Return a JSON object; empty where there is none, or none that can be read."""
    try:
        value = read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
