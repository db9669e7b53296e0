"""The tables that `automl-pt report` and `automl-pt studies` print. Names are shown escaped: they come from data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from automl_pt.builtin.validation_metrics import BY_NAME
from automl_pt.cli.console import stdout, text
from automl_pt.core.text import counted
from automl_pt.metric import Metric, columns
from automl_pt.study.extras.descriptions import extras_lines
from automl_pt.training.result import epochs_disagree

if TYPE_CHECKING:
    from automl_pt.reporting.run import RunReport
    from automl_pt.reporting.study import StudyReport
    from automl_pt.study.records import TrialRecord


def print_study(report: StudyReport, console: Console | None = None, metrics: Mapping[str, Metric] = BY_NAME) -> None:
    """Print the study's head, its trials, best first, and what is known of the best."""
    console = console or stdout()
    for line in _head(report):
        console.print(line)
    if report.trials or report.probes:
        console.print(_trial_table(report, metrics))
    for line in _answer(report):
        console.print(line)
    for line in _mattered(report):
        console.print(text(line))
    for line in extras_lines(report.made):
        console.print(text(line))


def print_run(report: RunReport, console: Console | None = None, metrics: Mapping[str, Metric] = BY_NAME) -> None:
    """Print a run's head, its epochs, and the epoch whose weights the model holds."""
    console = console or stdout()
    config = report.record.get("config", {})
    names = ("lr", "batch_size", "image_size", "seed", "objective")
    known = {name: value for name in names if (value := config.get(name)) not in (None, "val_loss")}
    shown = ", ".join(f"{name} {_param(value)}" for name, value in known.items())
    console.print(
        f"{text(config.get('backbone'))} on {text(config.get('dataset'))}: {text(report.status)}; {text(shown)}"
    )
    if report.record.get("error"):
        console.print(text(report.record["error"]))
    table = Table("epoch", box=box.SIMPLE)
    shown_metrics = columns({name for result in report.history for name in result.values()}, metrics)
    for name in ("train loss", *(f"val {text(metric.label)}" for metric in shown_metrics), "lr", "images/s", "seconds"):
        table.add_column(name, justify="right")
    best = report.best
    for result in report.history:
        figures = [metric.text(result.values().get(metric.name)) for metric in shown_metrics]
        speed = (f"{result.lr:.3g}", f"{result.images_per_second:.0f}", f"{result.seconds:.1f}")
        cells = (str(result.epoch), _loss(result.train_loss), *figures, *speed)
        table.add_row(*cells, style="bold" if result == best else None)
    if report.history:
        console.print(table)
    if best is not None:
        values = best.values()
        figures = [f"val {text(metric.label)} {metric.text(values.get(metric.name))}" for metric in shown_metrics]
        console.print(", ".join([f"best: epoch {best.epoch}", *figures]))
        other = epochs_disagree(report.history, str(config.get("objective", "val_loss")), str(config.get("keep")))
        if other is not None:
            console.print(text(other))


def print_studies(reports: Sequence[StudyReport], root: Path, console: Console | None = None) -> None:
    """Print one line a study."""
    console = console or stdout()
    if not reports:
        console.print(f"no studies in {text(root)}; `automl-pt search FOLDER` makes one")
        return
    table = Table("study", "dataset", "backbones", "trials", box=box.SIMPLE)
    table.add_column("best loss", justify="right")
    table.add_column("state")
    for report in reports:
        states = ", ".join(f"{count} {state.lower()}" for state, count in report.states().items()) or "-"
        names = ", ".join(report.backbones) or "-"
        cells = (text(report.name), text(report.dataset or "-"), text(names), states)
        table.add_row(*cells, _loss(report.best.value if report.best else None), report.status)
    console.print(table)


def _head(report: StudyReport) -> Iterable[str]:
    what = f"{text(', '.join(report.backbones))} on {text(report.dataset or '?')}"
    why = f" ({report.stopped})" if report.stopped else ""
    yield f"study {text(report.name)}: {what}, {report.status}{why}"
    if report.searched is not None:
        yield f"searched: {text(report.searched)}"
    states = ", ".join(f"{count} {state}" for state, count in report.states().items())
    yield counted(len(report.trials), "trial") + (f": {states}" if states else "")


def _trial_table(report: StudyReport, metrics: Mapping[str, Metric]) -> Table:
    from automl_pt.study.model_store import ranked

    every = report.everything()
    first = ranked(every)
    rest = [trial for trial in every if trial not in first]
    names = sorted({name for trial in report.trials for name in trial.params})
    table = Table("trial", box=box.SIMPLE)
    for name in names:
        table.add_column(text(name), justify="right")
    further = columns({name for trial in every for name in trial.metrics} - {"loss"}, metrics)
    labels = (f"val {text(metric.label)}" for metric in further)
    for name in ("val loss", *labels, "rank loss", "epochs", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("state")
    table.add_column("reason", overflow="fold")
    for trial in [*first, *rest]:
        style = "bold" if trial == report.best else None
        table.add_row(*_trial_cells(report, trial, names, further), style=style)
    return table


def _trial_cells(
    report: StudyReport, trial: TrialRecord, names: Sequence[str], metrics: Sequence[Metric]
) -> Iterable[str]:
    yield str(trial.number) if trial.number >= 0 else "probe"
    yield from (text(_param(trial.params.get(name, "-"))) for name in names)
    epochs = counted(trial.epochs_done, "epoch").split()[0]
    yield from (
        _loss(trial.value),
        *(metric.text(trial.metrics.get(metric.name)) for metric in metrics),
        _rank(trial),
        epochs,
        f"{trial.seconds:.1f}",
        trial.state,
        text(report.ended(trial)),
    )


def _rank(trial: TrialRecord) -> str:
    """Write the loss by which a trial was compared last, and after how many epochs."""
    return "-" if trial.ranked_at is None else f"{_loss(trial.rank_loss)} at {trial.ranked_at:.2g}"


def _answer(report: StudyReport) -> Iterable[str]:
    from automl_pt.study.records import ModelComparison, chosen_by, disagreement, title

    best = report.best
    if best is None:
        return
    params = ", ".join(f"{name} {_param(value)}" for name, value in best.params.items())
    objective = report.objective
    by = chosen_by(objective, best.metrics)
    yield text(f"best: {best.title}, val loss {_loss(best.value)}{', ' + by if by else ''}; {params}")
    if report.gain is not None:
        yield text(report.gain.sentence())
    yield from map(text, disagreement(report.everything(), best, objective))
    if report.comparison is not None:
        lead = report.comparison
        verdict = "inside" if lead["inside_noise"] else "outside"
        yield (
            f"lead over {title(lead['runner_up'])}: {lead['difference']:.4f} a validation image, standard error "
            f"{lead['standard_error']:.4f}: {verdict} the noise"
        )
        if (other := ModelComparison.from_dict(lead).disagreement()) is not None:
            yield f"note: {other}"
    if report.test is not None:
        yield "test split: " + ", ".join(f"{text(name)} {_number(value)}" for name, value in report.test.items())
    if report.model is not None:
        yield f"model: {text(report.model)}"


def _mattered(report: StudyReport) -> Iterable[str]:
    """Say which settings the order of the trials depended on, where there are trials enough to tell."""
    from automl_pt.reporting.sections.space import space_section

    found = space_section(report).get("importance", {})
    if "shares" in found:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in found["shares"].items())
        yield f"what mattered, by fANOVA of {found['trials']} trials: {shares}"
    if found.get("interactions"):
        pairs = ", ".join(f"{one} with {other} {100 * share:.0f} %" for one, other, share in found["interactions"])
        yield f"together, beyond each alone: {pairs}"


def _param(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else text(value)


def _loss(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 1000 else f"{value:.3g}"
