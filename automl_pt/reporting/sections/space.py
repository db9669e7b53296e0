"""The tried settings with their losses, and the settings' importance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from automl_pt.reporting.sections import Section, missing
from automl_pt.reporting.sections.interactions import interactions
from automl_pt.reporting.study import StudyReport
from automl_pt.study.quiet import quiet
from automl_pt.study.records import TrialRecord

#: with fewer trials the importance of two settings is indistinguishable from chance
MIN_TRIALS = 8


def space_section(report: StudyReport) -> Section:
    """Return every trial's settings with a loss that all have in common, and the settings' importance."""
    trials = [trial for trial in report.trials if {"lr", "batch_size"} <= trial.params.keys()]
    if not trials:
        return missing("No trial has started.")
    measure, losses = comparable(trials)
    points = [
        {
            "number": trial.number,
            **{name: trial.params[name] for name in sorted(trial.params)},
            "loss": losses.get(trial.number),
            "best": report.best is not None and trial.number == report.best.number,
        }
        for trial in trials
    ]
    note = (
        f"{f'Searched: {report.searched}. ' if report.searched else ''}Colour: {measure}. The ring is the best trial"
        + ("; crosses have no finite loss." if len(losses) < len(trials) else ".")
    )
    searched = (trial for trial in trials if trial.rival is None)
    found = importance([_on_own_scale(trial, report.lr_ranges) for trial in searched], losses)
    if report.lr_ranges and "note" in found:
        found["note"] += " The learning rate counts by its place in the range of the trial's optimiser."
    return {"measure": measure, "points": points, "note": note, "importance": found}


def _on_own_scale(trial: TrialRecord, ranges: Mapping[str, tuple[float, float]]) -> TrialRecord:
    """Replace a learning rate by its place in its optimiser's range, from 0 to 1 on a log scale."""
    own = ranges.get(str(trial.params.get("optimizer")))
    if own is None or not 0 < own[0] < own[1]:
        return trial
    place = math.log(trial.params["lr"] / own[0]) / math.log(own[1] / own[0])
    return replace(trial, params={**trial.params, "lr": place})


def comparable(trials: Sequence[TrialRecord]) -> tuple[str, dict[int, float]]:
    """Choose the loss that most trials have in common; return its name and its values by trial, finite ones only.

    Trials are pruned after different numbers of epochs, so their last losses are not comparable.
    """
    points = sorted({point for trial in trials for point in trial.ranks})
    counts = {point: sum(point in trial.ranks for trial in trials) for point in points}
    final = {trial.number: trial.value for trial in trials if trial.value is not None and math.isfinite(trial.value)}
    common = max(points, key=lambda point: counts[point], default=None)
    if common is None or counts[common] < len(final):
        return "validation loss", final
    losses = {trial.number: trial.ranks[common] for trial in trials if common in trial.ranks}
    finite = {number: loss for number, loss in losses.items() if math.isfinite(loss)}
    return f"loss when compared after {common:.2g} epochs", finite


def importance(trials: Sequence[TrialRecord], losses: Mapping[int, float]) -> Section:
    """Return each setting's share of the variance of the trials' order (fANOVA); a trial without a loss is last."""
    counting = [
        trial for trial in trials if trial.state != "FAIL" and (trial.number in losses or trial.state == "PRUNED")
    ]
    # an option of one backbone is missing from the trials of the others
    shared = set.intersection(*(set(trial.params) for trial in counting)) if counting else set()
    varied = [name for name in sorted(shared) if _varies(counting, name)]
    if len(counting) < MIN_TRIALS:
        return missing(
            f"{len(counting)} trials can be compared; with fewer than {MIN_TRIALS}, chance decides which setting seems "
            "to matter."
        )
    if len(varied) < 2:
        return missing("Only one setting was varied.")
    shares = _fanova(counting, losses, varied)
    note = (
        f"fANOVA of the order of {len(counting)} trials by that loss: how much of it each setting explains, "
        "interactions shared out. From so few trials it is a hint, not a measurement."
    )
    pairs = interactions(counting, losses, varied)
    if pairs:
        note += " An interaction is what two settings explain together beyond what each does, by a random forest."
    return {"shares": shares, "interactions": pairs, "trials": len(counting), "method": "fANOVA", "note": note}


def _varies(trials: Sequence[TrialRecord], name: str) -> bool:
    return len({trial.params.get(name) for trial in trials}) > 1


def _fanova(trials: Sequence[TrialRecord], losses: Mapping[int, float], names: Sequence[str]) -> dict[str, float]:
    """Return Optuna's importances on ranks, because one very high loss would dominate the values."""
    import optuna
    from scipy.stats import rankdata

    ranks = rankdata([losses.get(trial.number, math.inf) for trial in trials])
    distributions = {name: _distribution([trial.params[name] for trial in trials]) for name in names}
    with quiet():
        study = optuna.create_study()
        for trial, rank in zip(trials, ranks, strict=True):
            params = {name: trial.params[name] for name in names}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=float(rank)))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def _distribution(values: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(isinstance(value, float) for value in values):
        return FloatDistribution(min(values), max(values), log=min(values) > 0)
    return CategoricalDistribution(sorted(set(values), key=lambda value: (type(value).__name__, value)))
