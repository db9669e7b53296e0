"""The tables that `automl-pt report` and `automl-pt studies` print. Names are shown escaped: they come from data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from automl_pt.cli.console import stdout, text
from automl_pt.cli.search_lines import ENDED, clock, params_text
from automl_pt.cli.tables import Column, fitted, heading, loss, parameter, percent, varying
from automl_pt.core.text import counted, shown_path
from automl_pt.reporting.accuracy import kept_accuracy, read_accuracy
from automl_pt.study.extras.descriptions import extras_lines

#: Optuna's states of trials, for people
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}

if TYPE_CHECKING:
    from automl_pt.reporting.run import RunReport
    from automl_pt.reporting.study import StudyReport
    from automl_pt.study.records import TrialRecord


def print_study(report: StudyReport, console: Console | None = None) -> None:
    """Print the study's head, its trials, best first, and what is known of the best."""
    from automl_pt.study.model_store import ranked

    console = console or stdout()
    for line in _head(report):
        console.print(line)
    if report.trials or report.probes:
        every = report.everything()
        first = ranked(every)
        ordered = [*first, *(trial for trial in every if trial not in first)]
        _print(console, _trial_columns(report, ordered), ["bold" if one == report.best else "" for one in ordered])
        if any(trial.value is None and trial.rank_loss is not None for trial in ordered):
            console.print("~ ranking loss of a trial that was pruned before it had a validation loss")
    for line in _answer(report):
        console.print(line)
    for line in extras_lines(report.made):
        console.print(text(line))


def print_run(report: RunReport, console: Console | None = None) -> None:
    """Print a run's head, its epochs, and the epoch whose weights the model holds."""
    console = console or stdout()
    config = report.record.get("config", {})
    names = ("lr", "batch_size", "image_size", "seed")
    shown = ", ".join(f"{name} {_param(config.get(name))}" for name in names if config.get(name) is not None)
    console.print(
        f"{text(config.get('backbone'))} on {text(config.get('dataset'))}: {text(report.status)}; {text(shown)}"
    )
    if report.record.get("error"):
        console.print(text(report.record["error"]))
    best, history = report.best, report.history
    if history:
        columns = [
            Column("epoch", [str(result.epoch) for result in history]),
            Column("train loss", [loss(result.train_loss) for result in history], optional=1),
            Column("val loss", [loss(result.val_loss) for result in history]),
            Column("accuracy", [percent(result.val_accuracy) for result in history]),
            Column("learning rate", [f"{result.lr:.3g}" for result in history], optional=2),
            Column("images/s", [f"{result.images_per_second:.0f}" for result in history], optional=3),
            Column("time", [clock(result.seconds) for result in history], optional=4),
        ]
        _print(console, columns, ["bold" if result == best else "" for result in history])
    if best is not None:
        console.print(
            f"best: epoch {best.epoch}, val loss {loss(best.val_loss)}, val accuracy {percent(best.val_accuracy)}"
        )


def print_studies(reports: Sequence[StudyReport], root: Path, console: Console | None = None) -> None:
    """Print one line a study."""
    console = console or stdout()
    if not reports:
        console.print(f"no studies in {text(root)}; `automl-pt search FOLDER` makes one")
        return
    columns = [
        Column("study", [report.name for report in reports], text=True),
        Column("dataset", [shown_path(report.dataset or "-") for report in reports], text=True, optional=2),
        Column("backbones", [", ".join(report.backbones) or "-" for report in reports], text=True, optional=1),
        Column("trials", [_states(report) or "-" for report in reports], text=True),
        Column("best loss", [loss(report.best.value if report.best else None) for report in reports]),
        Column("state", [report.status for report in reports], text=True),
    ]
    _print(console, columns)


def _print(console: Console, columns: Sequence[Column], styles: Sequence[str] = ()) -> None:
    table, dropped = fitted(columns, console.width, styles=styles)
    console.print()
    console.print(table)
    if dropped:
        console.print(text(f"no room for: {', '.join(dropped)}; a wider terminal or --json shows all"))
    console.print()


def _states(report: StudyReport) -> str:
    return ", ".join(f"{count} {STATES.get(state, state)}" for state, count in report.states().items())


def _head(report: StudyReport) -> Iterable[str]:
    what = f"{text(', '.join(report.backbones))} on {text(shown_path(report.dataset or '?'))}"
    why = f" ({ENDED.get(report.stopped, report.stopped)})" if report.stopped else ""
    yield f"study {text(report.name)}: {what}, {report.status}{text(why)}"
    states = _states(report)
    yield counted(len(report.trials), "trial") + (f": {states}" if states else "")


def _trial_columns(report: StudyReport, trials: Sequence[TrialRecord]) -> list[Column]:
    """Return the columns: the trial, each setting that varies, and how the trial did."""
    names = varying([trial.params for trial in report.trials])
    if len(report.probes) > 1 and "backbone" not in names:
        names.append("backbone")
    settings = [
        Column(
            heading(name),
            [parameter(trial.params.get(name)) for trial in trials],
            text=any(isinstance(trial.params.get(name), str) for trial in trials),
            optional=place,
        )
        for place, name in enumerate(names, start=1)
    ]
    return [
        Column("trial", [str(trial.number) if trial.number >= 0 else "probe" for trial in trials]),
        *settings,
        Column("loss", [_score(trial) for trial in trials]),
        Column("accuracy", [percent(_accuracy(report, trial)) for trial in trials]),
        Column("epochs", [f"{trial.epochs_done:.2g}" for trial in trials]),
        Column("time", [clock(trial.seconds) for trial in trials]),
        Column("ended", [report.ended(trial) for trial in trials], text=True),
    ]


def _accuracy(report: StudyReport, trial: TrialRecord) -> float | None:
    return kept_accuracy(Path(report.directory), trial.number)


def _score(trial: TrialRecord) -> str:
    """Write the loss by which a trial stands; one that was only ranked has its ranking loss, with a ~ before it."""
    if trial.value is None and trial.rank_loss is not None:
        return f"~{loss(trial.rank_loss)}"
    return loss(trial.value)


def _answer(report: StudyReport) -> Iterable[str]:
    from automl_pt.study.records import title

    best = report.best
    if best is None:
        return
    yield f"best: {best.title}; {text(params_text(best.params))}"
    found = read_accuracy(Path(report.directory), best, report.probes, report.test)
    yield from map(text, found.lines() if found is not None else ())
    tested = (
        "" if report.test is None else "".join(f", test {name} {_number(one)}" for name, one in report.test.items())
    )
    yield text(f"loss:     validation {loss(best.value)}{tested if found is None else ''}")
    if report.comparison is not None:
        lead, over = report.comparison, title(report.comparison["runner_up"])
        tied = f"statistically tied with {over}" if lead["inside_noise"] else f"clearly ahead of {over}"
        yield (
            f"lead:     {tied} (difference in loss {lead['difference']:.4f} +- {lead['standard_error']:.4f} "
            "a validation image)"
        )
    if report.model is not None:
        yield f"model:    {text(shown_path(report.model))}"


def _param(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else text(value)
