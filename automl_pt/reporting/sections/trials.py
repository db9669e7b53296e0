"""The trials of a study: the leaderboard and the learning curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from automl_pt.builtin.validation_metrics import BY_NAME
from automl_pt.core.text import counted
from automl_pt.plugins.metrics import Metric, columns
from automl_pt.reporting.sections import Section, missing
from automl_pt.reporting.study import StudyReport
from automl_pt.study.model_store import ranked
from automl_pt.study.records import ProbeRecord, TrialRecord
from automl_pt.study.records import in_order as searched_in_order

REASONS = {
    "completed": "completed all epochs",
    "patience": "it stopped improving (patience)",
    "pruned": "pruned: others were better",
    "diverged": "diverged: no finite loss",
    "interrupted": "interrupted; the same command resumes it",
    "paused": "paused until it is compared",
    "running": "is running",
    "probe": "linear probe: a head fitted to the frozen network's features",
}


def metric_columns(recorded: Iterable[str], known: Mapping[str, Metric]) -> list[dict[str, str]]:
    """Return the columns of the metrics besides the loss."""
    found = columns(set(recorded) - {"loss"}, known)
    return [{"name": metric.name, "label": metric.label, "format": metric.format} for metric in found]


def trials_section(report: StudyReport, metrics: Mapping[str, Metric] = BY_NAME) -> Section:
    """List the trials, best first, each with its cost and why it ended."""
    every = report.everything()
    if not every:
        return missing("No trial has started.")
    rows = [{**_row(trial, report.best), "reason": _ended(report, trial)} for trial in in_order(every)]
    note = (
        "A pruned trial has no final loss. The column 'compared at' has the ranking loss of each trial after so many "
        "epochs; it is measured with each batch's own statistics, so it cannot be compared with a validation loss."
    )
    compared = any(trial.ranks for trial in report.trials)
    params = varied_params(report.trials or every)
    if len(report.probes) > 1 and "backbone" not in params:
        params.append("backbone")  # the trials may all have the one that the probes chose
    return {
        "params": params,
        "rows": rows,
        "metrics": metric_columns({name for trial in every for name in trial.metrics}, metrics),
        "ranked": compared,
        "note": note if compared else "",
        "probes": [_probe(probe) for probe in sorted(report.probes, key=lambda probe: _finite(probe.value))],
    }


def _probe(probe: ProbeRecord) -> dict[str, Any]:
    """Return a probe's figures and cost, for the ranking of backbones."""
    values = probe.to_dict()
    names = ("backbone", "value", "accuracy", "c", "seconds", "cpu_seconds", "computed", "parameters", "milliseconds")
    return {**{name: values[name] for name in names}, "failure": probe.failure}


def _ended(report: StudyReport, trial: TrialRecord) -> str:
    reason, _, floor = report.ended(trial).partition("; ")
    said = REASONS.get(reason, reason)
    return f"{said}; {floor}" if floor else said


def in_order(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Order trials best first: ranked models, then the others by progress and ranking loss."""
    first = ranked(trials)
    rest = [trial for trial in trials if trial not in first]
    return [*first, *sorted(rest, key=lambda one: (-(one.ranked_at or 0), _finite(one.rank_loss), one.number))]


def _row(trial: TrialRecord, best: TrialRecord | None) -> dict[str, Any]:
    return {
        "number": trial.number if trial.number >= 0 else "probe",
        "best": best is not None and trial.number == best.number,
        "params": dict(trial.params),
        "state": trial.state,
        "loss": trial.value,
        "metrics": dict(trial.metrics),
        "rank_loss": trial.rank_loss,
        "ranked_at": trial.ranked_at,
        "epochs": float(trial.epochs_done),
        "seconds": trial.seconds,
        "reason": REASONS.get(trial.reason, trial.reason),
    }


def varied_params(trials: Sequence[TrialRecord]) -> list[str]:
    """Name what was searched over; one that never varied is not shown."""
    names = searched_in_order({name for trial in trials for name in trial.params})
    varied = [name for name in names if len({str(trial.params.get(name)) for trial in trials}) > 1]
    return varied or names


def curves_section(report: StudyReport) -> Section:
    """Return each trial's validation losses by epoch, and its ranking losses."""
    curves = [_curve(trial, report.best) for trial in report.trials]
    if not any(curve["points"] for curve in curves):
        return missing("No trial has finished an epoch.")
    short = sum(not curve["points"] and bool(curve["ranks"]) for curve in curves)
    note = "The best trial is thick. A dot ends a complete trial, a cross one that was pruned."
    note += " Losses far above the others are beyond the upper edge."
    if short:
        note += f" {counted(short, 'trial')} ended after a short trial run, whose ranking loss is another measure."
    high = [curve["number"] for curve in curves if any(loss is None for _, loss in curve["points"])]
    return {"curves": curves, "note": note, "not_finite": high}


def _curve(trial: TrialRecord, best: TrialRecord | None) -> dict[str, Any]:
    return {
        "number": trial.number,
        "best": best is not None and trial.number == best.number,
        "complete": trial.state == "COMPLETE",
        "points": _points(trial.losses),
        "ranks": _points(trial.ranks),
    }


def _points(losses: Mapping[Any, float]) -> list[list[float | None]]:
    return [[float(epoch), loss if math.isfinite(loss) else None] for epoch, loss in sorted(losses.items())]


def _finite(loss: float | None) -> float:
    return loss if loss is not None and math.isfinite(loss) else math.inf
