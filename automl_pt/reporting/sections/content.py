"""The content of a report: all sections of a study's or a run's, with the pictures that its page shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from automl_pt.builtin.validation_metrics import BY_NAME
from automl_pt.core import __version__
from automl_pt.core.errors import AutomlError
from automl_pt.data.manifest import manifest_beside
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.plugins.metrics import Metric
from automl_pt.reporting.run import RunReport, read_history
from automl_pt.reporting.sections import Content, Section, attempt, missing, why
from automl_pt.reporting.sections.advice import advice_section
from automl_pt.reporting.sections.answer import run_answer, study_answer
from automl_pt.reporting.sections.data_check import check_section
from automl_pt.reporting.sections.forecast import forecast_section
from automl_pt.reporting.sections.mistakes import mistakes_section, pictures, saliency_section
from automl_pt.reporting.sections.repeat import run_repeat, study_repeat
from automl_pt.reporting.sections.space import space_section
from automl_pt.reporting.sections.timing import run_time, study_time
from automl_pt.reporting.sections.trials import curves_section, metric_columns, trials_section
from automl_pt.reporting.sections.validation_results import (
    ValidationResults,
    calibration_section,
    classes_section,
    confusion_section,
    judge,
    try_judge,
)
from automl_pt.reporting.study import StudyReport
from automl_pt.study.executor.base import NO_CALLER, Caller
from automl_pt.training.result import EpochResult

_LABELS = {
    "advice": "What to try next",
    "trials": "Trials",
    "curves": "Learning curves",
    "space": "Search space",
    "classes": "Classes",
    "confusion": "Confusions",
    "mistakes": "Mistakes",
    "saliency": "Where it looked",
    "calibration": "Calibration",
    "check": "Data check",
    "forecast": "More images",
    "time": "Time",
    "repeat": "Repeat",
}


def study_content(
    report: StudyReport, *, device: str = "auto", plugins: Plugins | None = None, caller: Caller = NO_CALLER
) -> Content:
    """Return all sections of a study; one that is not available states why.

    `caller` receives signs of progress.
    """
    judged: ValidationResults | Section = missing("There is no model yet.")
    if report.model is not None:
        model = Path(report.model)
        beside = manifest_beside(model)
        judged = try_judge(lambda: judge(model, beside, device=device, plugins=plugins, caller=caller))
    images, shown = _of_images(judged, caller)
    forecast = _forecast(report, judged, plugins, caller)
    values = {
        **_head("study", report.name, report.directory, _state(report)),
        "answer": study_answer(report, judged),
        "advice": advice_section(report, judged, forecast),
        "forecast": forecast,
        "trials": trials_section(report, plugins.metrics() if plugins is not None else BY_NAME),
        "curves": curves_section(report),
        "space": space_section(report),
        **images,
        "time": attempt(lambda: study_time(report)),
        "repeat": attempt(lambda: study_repeat(report)),
    }
    return Content(values, shown)


def run_content(run: RunReport, *, device: str = "auto", plugins: Plugins | None = None) -> Content:
    """Return all sections of a run; one that is not available states why."""
    directory = Path(run.directory)
    judged: ValidationResults | Section = missing("The run kept no model.")
    if (directory / "model.json").exists():
        judged = try_judge(lambda: judge(directory, manifest_beside(directory), device=device, plugins=plugins))
    images, shown = _of_images(judged)
    history, damage = _history(directory)
    best = next((one for one in reversed(history) if one.is_best), None)
    known = plugins.metrics() if plugins is not None else BY_NAME
    epochs = damage or (_epochs(history, best, known) if history else missing("No epoch has finished."))
    curve = epochs if "missing" in epochs else {**epochs, "note": "The ring marks the epoch whose weights were kept."}
    values = {
        **_head(
            "run",
            directory.absolute().name,
            run.directory,
            f"ended: {run.status}" if run.status != "running" else "running",
        ),
        "answer": run_answer(run, judged, best.to_dict() if best else None, history),
        "trials": epochs,
        "curves": curve,
        **images,
        "time": damage or attempt(lambda: run_time(run, history)),
        "repeat": attempt(lambda: run_repeat(run)),
    }
    of_studies = ("space", "advice", "forecast")
    values["contents"] = [pair for pair in values["contents"] if pair[0] not in of_studies]
    return Content(values, shown)


def _forecast(
    report: StudyReport, judged: ValidationResults | Section, plugins: Plugins | None, caller: Caller
) -> Section:
    if not isinstance(judged, ValidationResults):
        return judged
    loaded = plugins if plugins is not None else load_plugins()
    return attempt(lambda: forecast_section(report, judged.data, loaded, caller=caller))


def _history(directory: Path) -> tuple[list[EpochResult], Section | None]:
    try:
        return read_history(directory / "history.jsonl"), None
    except AutomlError as error:
        return [], missing(f"The run's history cannot be read. {why(error)}")


def _epochs(history: list[EpochResult], best: EpochResult | None, known: Mapping[str, Metric]) -> Section:
    rows = [{**one.to_dict(), "best": one is best} for one in history]
    metrics = metric_columns({name for one in history for name in one.values()}, known)
    return {"rows": rows, "epochs": rows, "metrics": metrics, "best": best.to_dict() if best else None}


def _head(kind: str, name: str, path: str, state: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "title": f"{name}: report",
        "heading": name,
        "state": state,
        "path": path,
        "version": __version__,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "contents": [[key, "Epochs" if kind == "run" and key == "trials" else label] for key, label in _LABELS.items()],
    }


def _state(report: StudyReport) -> str:
    states = ", ".join(f"{count} {state.lower()}" for state, count in report.states().items())
    return report.state + (f"; {len(report.trials)} trials: {states}" if states else "")


def _of_images(
    judged: ValidationResults | Section, caller: Caller = NO_CALLER
) -> tuple[dict[str, Section], dict[str, str]]:
    """Return the sections that need the model's predictions; without them each states why."""
    names = ("classes", "confusion", "mistakes", "saliency", "calibration", "check")
    if not isinstance(judged, ValidationResults):
        return dict.fromkeys(names, judged), {}
    found = judged
    mistakes = mistakes_section(found)
    caller.alive()
    shown = pictures(found, mistakes)
    caller.alive()
    saliency, looks = _saliency(found, mistakes)
    caller.alive()
    sections: dict[str, Callable[[], Section]] = {
        "classes": lambda: classes_section(found),
        "confusion": lambda: confusion_section(found),
        "mistakes": lambda: mistakes,
        "saliency": lambda: saliency,
        "calibration": lambda: calibration_section(found),
        "check": lambda: check_section(found.data),
    }
    return {name: attempt(make) for name, make in sections.items()}, {**shown, **looks}


def _saliency(judged: ValidationResults, mistakes: Section) -> tuple[Section, dict[str, str]]:
    try:
        return saliency_section(judged, mistakes)
    except AutomlError as error:
        return missing(why(error)), {}
