"""Several studies as one report: a line for each study, and all their trials together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from automl_pt.core import __version__
from automl_pt.core.errors import StudyError
from automl_pt.core.text import counted
from automl_pt.data.manifest import Manifest
from automl_pt.reporting.accuracy import kept_metrics, read_accuracy, wilson
from automl_pt.reporting.html.formats import percent, spread
from automl_pt.reporting.sections import Content, Section, missing
from automl_pt.reporting.sections.trials import REASONS, in_order, varied_params
from automl_pt.reporting.study import StudyReport
from automl_pt.study.extras.descriptions import extras_lines

#: said of figures of studies with other images
OTHER_DATA = (
    "Only studies with the same letter under data trained and validated on the same images, so that only their "
    "validation figures can be compared."
)


def studies_content(reports: Sequence[StudyReport]) -> Content:
    """Return the report of several studies, each of which is known by its number, from 1, in the order given."""
    rows = study_rows(reports)
    trials = _trials(reports)
    values = {
        "kind": "studies",
        "title": "Studies: report",
        "heading": f"{len(reports)} studies",
        "state": f"{counted(sum(len(report.trials) for report in reports), 'trial')} together",
        "path": " ".join(report.directory for report in reports),
        "version": __version__,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "contents": [["studies", "Studies"], ["curves", "Losses"], ["trials", "All trials"]],
        "answer": {"sentences": _answer(rows), "more": _more(reports)},
        "studies": {"rows": rows, "note": OTHER_DATA if len({row["data"] for row in rows}) > 1 else ""},
        "trials": trials,
        "losses": _losses(trials),
    }
    return Content(values, {})


def study_rows(reports: Sequence[StudyReport]) -> list[dict[str, Any]]:
    """Return a line of figures for each study; studies on the same images have the same letter as `data`."""
    rows, letters = [], dict[str, str]()
    for number, report in enumerate(reports, 1):
        fingerprint, counts = _data(report)
        if fingerprint is not None:
            letters.setdefault(fingerprint, _letter(len(letters)))
        found = read_accuracy(Path(report.directory), report.best, report.trials, report.probes, report.test)
        rows.append(
            {
                "number": number,
                "name": report.name,
                "status": report.status,
                "data": "-" if fingerprint is None else letters[fingerprint],
                "images": counts,
                "backbones": ", ".join(report.backbones),
                "trials": len(report.trials),
                "best": None if report.best is None else report.best.title,
                "loss": None if report.best is None else report.best.value,
                "accuracy": None if found is None else found.value,
                "accuracy_interval": None if found is None else wilson(found.value, found.images),
                "test_accuracy": None if found is None else found.test,
                "test_interval": None if found is None else wilson(found.test, found.test_images),
                "seconds": sum(trial.seconds for trial in report.trials),
            }
        )
    return rows


def _letter(place: int) -> str:
    return f"{'' if place < 26 else place // 26}{chr(ord('A') + place % 26)}"


def _data(report: StudyReport) -> tuple[str | None, dict[str, int]]:
    try:
        manifest = Manifest.load(Path(report.directory) / "manifest.json")
    except StudyError:  # not started yet, or damaged: the study's own report says so
        return None, {}
    return manifest.fingerprint(), {str(split): count for split, count in manifest.counts().items() if count}


def _answer(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence on the best study of each set of images; intervals that overlap decide nothing."""
    sentences = []
    for letter in dict.fromkeys(row["data"] for row in rows):
        known = [row for row in rows if row["data"] == letter and row["loss"] is not None]
        if not known or letter == "-":
            continue
        best = min(known, key=lambda row: row["loss"])
        where = f"On the images {letter} " if len({row["data"] for row in rows}) > 1 else ""
        lowest = f"{where}{'t' if where else 'T'}he lowest validation loss is {best['loss']:.4f}, of {best['name']}"
        shown = "" if best["accuracy"] is None else f", with an accuracy of {percent(best['accuracy'])}"
        between = best["accuracy_interval"]
        sentences.append(f"{lowest}{shown}{f' (95 %: {spread(between)} %)' if between else ''}.")
    pair = "`automl-pt studies compare FIRST SECOND` compares the models of two of them image by image."
    return [*(sentences or ["No study has a finished trial yet."]), pair]


def _more(reports: Sequence[StudyReport]) -> list[str]:
    return [f"{report.name}: {line}" for report in reports for line in extras_lines(report.made)]


def _trials(reports: Sequence[StudyReport]) -> Section:
    """Return the trials of all studies, best first."""
    pairs = [(number, trial) for number, report in enumerate(reports, 1) for trial in report.everything()]
    of, every = {id(trial): number for number, trial in pairs}, [trial for _, trial in pairs]
    if not every:
        return missing("No trial has started.")
    rows = [
        {
            "study": of[id(trial)],
            "name": reports[of[id(trial)] - 1].name,
            "number": trial.number if trial.number >= 0 else "probe",
            "best": reports[of[id(trial)] - 1].best == trial,
            "params": dict(trial.params),
            "state": trial.state,
            "loss": trial.value,
            "accuracy": kept_metrics(Path(reports[of[id(trial)] - 1].directory), trial).get("accuracy"),
            "epochs": float(trial.epochs_done),
            "seconds": trial.seconds,
            "reason": REASONS.get(trial.reason, trial.reason),
        }
        for trial in in_order(every)
    ]
    return {"params": varied_params(every), "rows": rows}


def _losses(trials: Section) -> Section:
    """Return the learning rate and the validation loss of each complete trial, for the plot."""
    if "missing" in trials:
        return trials
    points = [
        {"study": row["study"], "lr": row["params"]["lr"], "loss": row["loss"], "best": row["best"]}
        for row in trials["rows"]
        if row["loss"] is not None and isinstance(row["params"].get("lr"), float)
    ]
    if not points:
        return missing("No trial has a validation loss yet.")
    return {
        "points": points,
        "note": "Each number is a trial of that study, with its validation loss; a ring marks the best of a study. "
        "Losses far above the others are at the upper edge.",
    }
