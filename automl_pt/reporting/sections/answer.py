"""The answer: which model, what the search gained, how good on which images, and whether its lead is clear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from automl_pt.core.text import counted, printable
from automl_pt.reporting.html.formats import duration, loss, number, percent, setting, spread
from automl_pt.reporting.run import RunReport
from automl_pt.reporting.sections import Section
from automl_pt.reporting.sections.validation_results import ValidationResults
from automl_pt.reporting.study import StudyReport
from automl_pt.study.extras.descriptions import extras_lines
from automl_pt.study.records import ModelComparison, TrialRecord, chosen_by, disagreement, in_order, title
from automl_pt.training.result import EpochResult, epochs_disagree


def study_answer(report: StudyReport, judged: ValidationResults | Section) -> Section:
    """Return sentences on a study's best model, its accuracy and its lead."""
    best = report.best
    if best is None or best.value is None:
        return {"sentences": _nothing(report), "inside_noise": None, "more": []}
    inside = report.comparison["inside_noise"] if report.comparison else None
    gain = [report.gain.sentence()] if report.gain is not None else []
    sentences = [_which(report, best), *gain, _good(report, best, judged), _lead(report, best)]
    more = [*_by_objective(report, best), *extras_lines(report.made)]
    return {"sentences": sentences, "inside_noise": inside, "more": more}


def _by_objective(report: StudyReport, best: TrialRecord) -> list[str]:
    """Return what chose the best trial, and where the loss would choose another; nothing if the loss chose it."""
    objective = report.objective
    if objective == "val_loss":
        return []
    other = disagreement(report.everything(), best, objective)
    agreed = f"The validation loss would have chosen the same trial and epoch as {objective}."
    return [f"Chosen by {chosen_by(objective, best.metrics) or objective}.", *(other or [agreed])]


def _which(report: StudyReport, best: TrialRecord) -> str:
    model = best.params.get("backbone", report.backbones[0] if report.backbones else "the model")
    settings = "a linear head on its frozen features" if best.number < 0 else _settings(best.params)
    took = "" if report.seconds is None else f", in {duration(report.seconds)}"
    ahead = {"running": "So far the best model is", "interrupted": "Before it was interrupted, the search found"}
    opening = ahead.get(report.status, "The best model is")
    unfinished = "" if best.state == "COMPLETE" else ", which has not run all its epochs"
    return (
        f"{opening} {model} with {settings}: {best.title}{unfinished}, the best of "
        f"{counted(len(report.trials), 'trial')}{took}."
    )


def _settings(params: Mapping[str, Any]) -> str:
    """Name every setting that was searched; the backbone is named before them."""
    shown = [printable(f"{setting(key)} {number(params[key])}") for key in in_order(params) if key != "backbone"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def _good(report: StudyReport, best: TrialRecord, judged: ValidationResults | Section) -> str:
    seen = _seen(judged) if isinstance(judged, ValidationResults) else f"Its validation loss is {loss(best.value)}"
    figures = report.test
    if figures and isinstance(figures.get("accuracy"), float):
        tested = f"{percent(figures['accuracy'])} (loss {loss(figures.get('loss'))})"
        return f"{seen}; on the test images, which were not used to choose anything, on {tested}."
    return f"{seen}. It was chosen by these images, and there is no test split, so expect slightly less on new ones."


def _seen(judged: ValidationResults) -> str:
    scores = judged.scores
    heat = "" if scores.temperature == 1 else f" at its temperature of {scores.temperature:.3g}"
    return (
        f"It is right on {percent(scores.accuracy)} of the {scores.images:,} validation images (95 %: "
        f"{spread(scores.accuracy_interval)} %), with a loss of {loss(scores.loss)}{heat}"
    )


def _lead(report: StudyReport, best: TrialRecord) -> str:
    lead = report.comparison
    if lead is None:
        if report.status in ("running", "interrupted"):
            return "Whether its lead is statistically clear is measured when the search has ended."
        return "No second complete trial kept its weights, so the lead was not measured."
    gap = f"{lead['difference']:.4f} a validation image, with a standard error of {lead['standard_error']:.4f}"
    other = title(lead["runner_up"])
    if lead["difference"] < 0 and report.objective != "val_loss":
        clear = "not statistically clear" if lead["inside_noise"] else "statistically clear"
        return f"{other[0].upper()}{other[1:]} has a lower loss, and the difference is {clear} ({gap})."
    against = ModelComparison.from_dict(lead).disagreement()
    more = "" if against is None else f" {against[0].upper()}{against[1:]}."
    if lead["inside_noise"]:
        return f"The best two are statistically tied: {other} is behind by {gap}; another seed could reverse it.{more}"
    return f"Its lead over {other} is clear ({gap}), measured on the images that it was chosen by.{more}"


def _nothing(report: StudyReport) -> list[str]:
    if not report.trials:
        begun = "has not been started" if report.status == "not started" else "has started no trial yet"
        return [f"This search {begun}.", "There is no model.", "There is nothing to compare."]
    failed = [trial for trial in report.trials if trial.state == "FAIL"]
    if failed and len(failed) == len(report.trials):
        reason, count = Counter(trial.reason for trial in failed).most_common(1)[0]
        return [
            f"All {counted(len(failed), 'trial')} failed, so that there is no model.",
            f"The commonest reason, of {count}: {reason.removeprefix('failed: ')}.",
            "Run one of them by itself with `automl-pt train` and `--traceback` to see where it fails.",
        ]
    states = ", ".join(f"{count} {state.lower()}" for state, count in report.states().items())
    return [
        f"No trial has kept a model so far ({states}).",
        "There is nothing to measure.",
        "There is nothing to compare.",
    ]


def run_answer(
    run: RunReport,
    judged: ValidationResults | Section,
    best: dict[str, Any] | None,
    history: Sequence[EpochResult] = (),
) -> Section:
    """Return sentences on what a run trained, its accuracy and its end."""
    config = run.record.get("config")
    config = config if isinstance(config, dict) else {}
    what = f"{config.get('backbone', 'a model')} on {config.get('dataset', 'unknown data')}"
    settings = f"learning rate {number(config.get('lr'))} and batch size {number(config.get('batch_size'))}"
    sentences = [f"This run trained {what} with {settings}."]
    if isinstance(judged, ValidationResults):
        sentences.append(f"{_seen(judged)}; the epoch was chosen by these images.")
    elif best is not None:
        what = (
            "lowest validation loss is" if config.get("objective", "val_loss") == "val_loss" else "kept epoch's loss is"
        )
        sentences.append(f"Its {what} {loss(best['val_loss'])}, after epoch {best['epoch']}.")
    else:
        sentences.append("It kept no model.")
    error = f": {run.record['error']}" if run.record.get("error") else ""
    sentences.append(f"It ended: {run.status}{error}." if run.status != "running" else "It is running.")
    other = epochs_disagree(history, str(config.get("objective", "val_loss")), str(config.get("keep")))
    return {"sentences": sentences, "inside_noise": None, "more": [other] if other is not None else []}
