"""The tables that `automl-pt report` and `automl-pt studies` print. Names are escaped, because they come from data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from automl_pt.builtin.validation_metrics import BY_NAME
from automl_pt.cli.console import stdout, text
from automl_pt.cli.display import metric_texts
from automl_pt.cli.search_lines import clock, lead_lines, params_text
from automl_pt.cli.tables import Column, fitted, heading, loss, metric_columns, parameter, percent, varying
from automl_pt.core.text import counted, shown_path
from automl_pt.plugins.metrics import Metric
from automl_pt.reporting.accuracy import kept_metrics, read_accuracy
from automl_pt.study.extras.descriptions import extras_lines
from automl_pt.training.result import epochs_disagree

#: Optuna's states of trials in words
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}

if TYPE_CHECKING:
    from automl_pt.reporting.run import RunReport
    from automl_pt.reporting.study import StudyReport
    from automl_pt.study.records import TrialRecord
    from automl_pt.training.result import EpochResult


def print_study(report: StudyReport, console: Console | None = None, metrics: Mapping[str, Metric] = BY_NAME) -> None:
    """Print the study's summary, its trials, best first, and the results of the best."""
    from automl_pt.study.model_store import ranked

    console = console or stdout()
    for line in _head(report):
        console.print(line)
    if report.trials or report.probes:
        every = report.everything()
        first = ranked(every)
        ordered = [*first, *(trial for trial in every if trial not in first)]
        styles = ["bold" if one == report.best else "" for one in ordered]
        _print(console, _trial_columns(report, ordered, metrics), styles)
        if any(trial.value is None and trial.rank_loss is not None for trial in ordered):
            console.print("~ ranking loss of a trial without a validation loss")
        for line in _ranking(report):
            console.print(line)
        for line in _remarks(report, ordered):
            console.print(text(line))
    for line in _answer(report):
        console.print(line)
    for line in _mattered(report):
        console.print(text(line))
    for line in extras_lines(report.made):
        console.print(text(line))


def print_run(report: RunReport, console: Console | None = None, metrics: Mapping[str, Metric] = BY_NAME) -> None:
    """Print a run's summary, its epochs, and the epoch whose weights the model holds."""
    console = console or stdout()
    config, best, history = report.record.get("config", {}), report.best, report.history
    objective = str(config.get("objective", "val_loss"))
    names = ("lr", "batch_size", "image_size", "seed", "objective")
    known = {name: value for name in names if (value := config.get(name)) not in (None, "val_loss")}
    shown = ", ".join(f"{name} {parameter(value)}" for name, value in known.items())
    console.print(
        f"{text(config.get('backbone'))} on {text(config.get('dataset'))}: {text(report.status)}; {text(shown)}"
    )
    if report.record.get("error"):
        console.print(text(report.record["error"]))
    if history:
        columns = _epoch_columns(history, metrics, objective)
        _print(console, columns, ["bold" if result == best else "" for result in history])
    if best is not None:
        console.print(text(", ".join([f"best: epoch {best.epoch}", *metric_texts(best.values(), metrics)])))
        other = epochs_disagree(history, objective, str(config.get("keep")))
        if other is not None:
            console.print(text(other))


def _epoch_columns(history: Sequence[EpochResult], metrics: Mapping[str, Metric], objective: str) -> list[Column]:
    return [
        Column("epoch", [str(result.epoch) for result in history]),
        Column("train loss", [loss(result.train_loss) for result in history], optional=1),
        Column("val loss", [loss(result.val_loss) for result in history]),
        *metric_columns([result.values() for result in history], metrics, objective),
        Column("learning rate", [f"{result.lr:.3g}" for result in history], optional=2),
        Column("images/s", [f"{result.images_per_second:.0f}" for result in history], optional=3),
        Column("time", [clock(result.seconds) for result in history], optional=4),
    ]


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
        Column("state", ["finishing" if report.doing else report.status for report in reports], text=True),
    ]
    _print(console, columns)


def print_several(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print one line a study, with the figures that can be compared."""
    console, rows = console or stdout(), content["studies"]["rows"]
    columns = [
        Column("study", [row["name"] for row in rows], text=True),
        Column("data", [row["data"] for row in rows], text=True),
        Column("images", [str(sum(row["images"].values())) for row in rows], optional=2),
        Column("trials", [str(row["trials"]) for row in rows], optional=3),
        Column("val loss", [loss(row["loss"]) for row in rows]),
        Column("accuracy", [percent(row["accuracy"]) for row in rows]),
        Column("test accuracy", [percent(row["test_accuracy"]) for row in rows], optional=1),
        Column("time", [clock(row["seconds"]) for row in rows], optional=4),
    ]
    _print(console, columns)
    for line in filter(None, [content["studies"]["note"], *content["answer"]["more"]]):
        console.print(text(line))
    console.print("next:  automl-pt report STUDY... --html FILE shows all their trials on one page")


def _print(console: Console, columns: Sequence[Column], styles: Sequence[str] = ()) -> None:
    table, dropped = fitted(columns, console.width, styles=styles)
    console.print()
    console.print(table)
    if dropped:
        console.print(text(f"not shown: {', '.join(dropped)}; a wider terminal or --json shows all"))
    console.print()


def _states(report: StudyReport) -> str:
    return ", ".join(f"{count} {STATES.get(state, state)}" for state, count in report.states().items())


def _head(report: StudyReport) -> Iterable[str]:
    what = f"{text(', '.join(report.backbones))} on {text(shown_path(report.dataset or '?'))}"
    yield f"study {text(report.name)}: {what}, {text(report.state)}"
    if report.searched is not None:
        yield f"searched: {text(report.searched)}"
    states = _states(report)
    yield counted(len(report.trials), "trial") + (f": {states}" if states else "")


def _trial_columns(report: StudyReport, trials: Sequence[TrialRecord], metrics: Mapping[str, Metric]) -> list[Column]:
    """Return the columns: the trial, each setting that varies, and its results."""
    folder = Path(report.directory)
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
        *metric_columns([kept_metrics(folder, trial) for trial in trials], metrics, report.objective),
        Column("epochs", [f"{trial.epochs_done:.2g}" for trial in trials]),
        Column("time", [clock(trial.seconds) for trial in trials]),
        Column("ended", [_ended(report, trial) for trial in trials], text=True),
    ]


def _ended(report: StudyReport, trial: TrialRecord) -> str:
    """Return why a trial ended, with a * where `_remarks` says more."""
    reason, _, more = report.ended(trial).partition("; ")
    return f"{reason} *" if more else reason


def _remarks(report: StudyReport, trials: Sequence[TrialRecord]) -> Iterator[str]:
    """Yield what is to be said of trials beside why they ended, each remark once."""
    found: dict[str, list[str]] = {}
    for trial in trials:
        if more := report.ended(trial).partition("; ")[2]:
            found.setdefault(more, []).append(str(trial.number))
    for more, numbers in found.items():
        yield f"* trial{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}: {more}"


def _ranking(report: StudyReport) -> Iterator[str]:
    """Yield the ranking of several backbones by their probes, with size and speed."""
    if len(report.probes) < 2:
        return
    fitted = [probe for probe in report.probes if probe.failure is None and probe.value is not None]
    for place, probe in enumerate(sorted(fitted, key=lambda probe: probe.value or 0.0)):
        start = "backbones by their probes: " if place == 0 else " " * 27
        yield text(f"{start}{probe.backbone} {loss(probe.value)}{probe.cost_of_use()}, {clock(probe.seconds)}")
    for probe in report.probes:
        if probe.failure is not None:
            yield text(f"{' ' * 27}{probe.backbone}: {probe.failure}")


def _score(trial: TrialRecord) -> str:
    """Write a trial's validation loss, or its ranking loss after a ~ if it has no other."""
    if trial.value is None and trial.rank_loss is not None:
        return f"~{loss(trial.rank_loss)}"
    return loss(trial.value)


def _answer(report: StudyReport) -> Iterable[str]:
    from automl_pt.study.records import ModelComparison, chosen_by, disagreement

    best = report.best
    if best is None:
        return
    yield f"best: {best.title}; {text(params_text(best.params))}"
    found = read_accuracy(Path(report.directory), best, report.trials, report.probes, report.test)
    yield from map(text, found.lines() if found is not None else ())
    tested = (
        "" if report.test is None else "".join(f", test {name} {_number(one)}" for name, one in report.test.items())
    )
    yield text(f"loss:     validation {loss(best.value)}{tested if found is None else ''}")
    if report.gain is not None:
        yield text(report.gain.sentence())
    by = chosen_by(report.objective, best.metrics)
    if by:
        yield text(f"chosen:   by {by}")
    yield from map(text, disagreement(report.everything(), best, report.objective))
    if report.comparison is not None:
        yield from map(text, lead_lines(ModelComparison.from_dict(report.comparison)))
    if report.model is not None:
        yield f"model:    {text(shown_path(report.model))}"


def _mattered(report: StudyReport) -> Iterable[str]:
    """Yield lines on which settings explain the order of the trials, if there are enough trials."""
    from automl_pt.reporting.sections.space import space_section

    found = space_section(report).get("importance", {})
    if "shares" in found:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in found["shares"].items())
        yield f"what mattered, by fANOVA of {found['trials']} trials: {shares}"
    if found.get("interactions"):
        pairs = ", ".join(f"{one} with {other} {100 * share:.0f} %" for one, other, share in found["interactions"])
        yield f"together, beyond each alone: {pairs}"


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else text(value)
