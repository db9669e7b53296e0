"""What `automl-pt search` shows of the events a search tells."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from automl_pt.builtin.validation_metrics import BY_NAME
from automl_pt.cli.display import bar_columns, images_line, metric_texts
from automl_pt.core.files import to_json
from automl_pt.core.text import counted
from automl_pt.metric import Metric, columns
from automl_pt.study import events
from automl_pt.study.extras.descriptions import extras_lines
from automl_pt.study.records import ProbeRecord, chosen_by, disagreement, title
from automl_pt.training.result import EpochResult


@dataclass(frozen=True)
class SearchDisplay:
    """What `automl-pt search` tells while it works: events, and before them how far the images are read."""

    show: Callable[[events.Event], None]
    preparing: Callable[[str, int, int], None] = lambda what, done, total: None


@contextmanager
def search_display(*, quiet: bool, as_json: bool, metrics: Mapping[str, Metric] = BY_NAME) -> Iterator[SearchDisplay]:
    """Choose how events are shown: a live table on a terminal, plain lines elsewhere, JSON lines on request.

    `metrics` are the metrics known here.
    """
    if quiet:
        yield SearchDisplay(lambda event: None)
    elif as_json:
        yield SearchDisplay(lambda event: print(to_json(event.to_dict()), flush=True))
    elif sys.stdout.isatty():
        console = Console()
        view = LiveView(metrics=metrics)
        with Live(view.render(), console=console, refresh_per_second=4) as live:

            def show(event: events.Event) -> None:
                if isinstance(event, events.NetworkChosen | events.StudyStarted):
                    for line in describe(event):
                        live.console.print(line, highlight=False, soft_wrap=True)
                view.take(event)
                live.update(view.render())

            def preparing(what: str, done: int, total: int) -> None:
                view.preparing(what, done, total)
                live.update(view.render())

            yield SearchDisplay(show, preparing)
        for line in view.summary:
            console.print(line, highlight=False, soft_wrap=True)
    else:
        console = Console(highlight=False, soft_wrap=True)

        def show_lines(event: events.Event) -> None:
            for line in describe(event, metrics):
                console.print(line)

        yield SearchDisplay(show_lines)


def describe(event: events.Event, metrics: Mapping[str, Metric] = BY_NAME) -> list[str]:
    """Say an event in plain lines, safe for a terminal."""
    match event:
        case events.NetworkChosen():
            return [escape(f"network: {event.text}")]
        case events.StudyStarted():
            found = f", {event.finished} of them done before" if event.finished else ""
            where = f"{event.workers} at a time" if event.workers else "in this process"
            name = f"study {event.name} in {event.directory}: {counted(event.trials, 'trial')}{found}, {where}"
            return [escape(line) for line in (*first_lines(event), name)]
        case events.ProbeStarted():
            return [escape(f"probe of {event.backbone}: a linear head on the frozen network's features")]
        case events.PassDone():
            return [escape(f"probe of {event.backbone}: features of {event.done} of {event.total} images")]
        case events.ProbeEnded():
            return [escape(probe_line(event.probe, metrics))]
        case events.TrialStarted():
            verb = f"goes on after epoch {event.epochs_done:.2g}" if event.epochs_done >= 1 else "starts"
            if not event.epochs_done and event.until < 1:
                verb = "starts in miniature"
            rival = " (rival)" if event.rival is not None else ""
            return [escape(f"trial {event.number}{rival} {verb}: {params_text(event.params)}")]
        case events.TrialRanked():
            return [f"trial {event.trial} in miniature, {event.epoch:.2g} of an epoch: rank loss {event.rank_loss:.4f}"]
        case events.EpochDone():
            result = event.result
            figures = ", ".join(metric_texts(result.values(), metrics))
            return [escape(f"trial {event.trial} epoch {result.epoch}: {figures}, {result.seconds:.1f} s")]
        case events.TrialPaused():
            return [f"trial {event.number} waits" + (f" after epoch {event.epoch:g}" if event.epoch >= 1 else "")]
        case events.TrialEnded():
            value = "" if event.value is None else f", val loss {event.value:.4f}"
            epochs = counted(event.epochs, "epoch") if event.epochs else "after its run in miniature"
            return [escape(f"trial {event.number} ended: {event.reason}{value}, {epochs}, {event.seconds:.1f} s")]
        case events.NewBest():
            by = f", {event.chosen_by}" if event.chosen_by else ""
            return [escape(f"best so far: {title(event.number)}, val loss {event.value:.4f}{by}")]
        case events.Notice():
            return [escape(f"note: {event.text}")]
        case events.Finished():
            return result_lines(event)
    return []


def first_lines(event: events.StudyStarted) -> list[str]:
    """Say what the search works with: images, classes and pixels, device, and what is searched."""
    if not event.classes:
        return []
    epochs = f"{counted(event.trials, 'trial')} of at most {counted(event.epochs, 'epoch')}"
    return [
        images_line(event.images, event.classes, event.image_sizes),
        f"device:  {event.device}",
        f"search:  {event.searched}; {epochs}",
    ]


def result_lines(event: events.Finished) -> list[str]:
    """Say what the search gave."""
    result = event.result
    lines = [f"{counted(len(result.trials), 'trial')} in {clock(result.seconds)}; ended by: {result.stopped}"]
    if result.best is not None and result.best.value is not None:
        by = chosen_by(result.objective, result.best.metrics)
        figures = f"val loss {result.best.value:.4f}" + (f", {by}" if by else "")
        lines.append(f"best: {result.best.title}, {params_text(result.best.params)}, {figures}")
        records = [*(probe.as_trial() for probe in result.probes), *result.trials]
        lines += [] if result.gain is None else [result.gain.sentence()]
        lines += disagreement(records, result.best, result.objective)
    if result.comparison is not None:
        found = result.comparison
        verdict = "inside" if found.inside_noise else "outside"
        lines.append(
            f"its lead over {title(found.runner_up)}: {found.difference:.4f} +- {found.standard_error:.4f}, "
            f"{verdict} the noise of {found.images} validation images"
        )
        lines += [] if (other := found.disagreement()) is None else [f"note: {other}"]
    elif result.runner_up is not None and result.runner_up.value is not None:
        second = result.runner_up
        lines.append(
            f"runner-up: {second.title}, {second.reason} after {counted(second.epochs, 'epoch')}, "
            f"val loss {second.value:.4f}; not compared image by image"
        )
    if result.test is not None:
        lines.append("test: " + ", ".join(f"{name} {value:.4f}" for name, value in result.test.items()))
    if result.estimate_error is not None and result.signal is None:
        lines.append(f"time as estimated half way: {_wrong_by(result.estimate_error)}")
    lines += extras_lines(result.made)
    lines += [f"note: {note}" for note in result.notes]
    lines.append(f"model: {result.model}" if result.model else "no model")
    if result.report is not None:
        lines.append(f"report: {result.report}")
    return [escape(line) for line in lines]


def probe_line(probe: ProbeRecord, metrics: Mapping[str, Metric] = BY_NAME) -> str:
    """Say what a linear probe found and cost."""
    if probe.value is None or probe.accuracy is None or probe.c is None:
        return f"probe of {probe.backbone}: none ({probe.failure})"
    cost = f"{probe.seconds:.1f} s, {probe.computed} images through the network"
    figures = ", ".join([*metric_texts(probe.as_trial().metrics, metrics), f"C {probe.c:.2g}"])
    left_out = "" if probe.failure is None else f"; left out: {probe.failure}"
    return f"probe of {probe.backbone}: {figures}, {cost}{left_out}"


def _wrong_by(error: float) -> str:
    per_cent = round(100 * abs(error))
    return f"{per_cent} % too {'long' if error > 0 else 'short'}" if per_cent else "right"


def params_text(params: dict[str, Any]) -> str:
    """Write a trial's parameters in a fixed order, learning rates with three digits."""
    shown = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in sorted(params.items())}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def clock(seconds: float) -> str:
    """Write a duration as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass
class Row:
    """One trial in the live table."""

    params: str
    epoch: float = 0
    #: the metrics of validation by name
    values: Mapping[str, float] = field(default_factory=dict)
    #: those of the epoch whose weights are kept: what a trial that has ended is judged by
    kept: Mapping[str, float] | None = None
    state: str = "running"
    seconds: float = 0.0


def _probe_row(found: ProbeRecord) -> Row:
    values = found.as_trial().metrics
    return Row(f"probe of {found.backbone}", values=values, state="probe", seconds=found.seconds)


@dataclass
class LiveView:
    """A table of trials with a bar below it, kept up to date by events."""

    rows: dict[int, Row] = field(default_factory=dict)
    best: int | None = None
    title: str = "search"
    epochs: int = 0
    metrics: Mapping[str, Metric] = field(default_factory=lambda: BY_NAME)
    notes: list[str] = field(default_factory=list)
    summary: list[str] = field(default_factory=list)
    progress: events.Progress | None = None
    #: the bar of the images read; None once the study has begun
    reading: Progress | None = None

    def preparing(self, what: str, done: int, total: int) -> None:
        """Move the bar with the images read."""
        if self.reading is None:
            self.reading = Progress(*bar_columns())
            self.reading.add_task(what, total=total)
        self.reading.update(self.reading.task_ids[0], description=what, completed=done, total=total)

    def take(self, event: events.Event) -> None:
        """Bring the view up to date."""
        match event:
            case events.StudyStarted():
                self.title, self.epochs, self.reading = f"study {event.name}", event.epochs, None
            case events.ProbeStarted():
                self.rows[event.number] = Row(f"probe of {event.backbone}", state="features")
            case events.PassDone():
                self.rows[event.number].state = f"features of {event.done} of {event.total} images"
            case events.ProbeEnded():
                self.rows[event.probe.number] = _probe_row(event.probe)
            case events.TrialStarted():
                rival = "rival: " if event.rival is not None else ""
                row = self.rows.setdefault(event.number, Row(rival + params_text(event.params)))
                row.epoch, row.state = event.epochs_done, "running"
            case events.EpochDone():
                row, result = self.rows.setdefault(event.trial, Row("")), event.result
                row.epoch, row.values = result.epoch, result.values()
                row.kept = _kept(result) if result.is_best else row.kept
                row.seconds += result.seconds
            case events.TrialRanked():
                self.rows.setdefault(event.trial, Row("")).epoch = event.epoch
            case events.TrialPaused():
                self.rows.setdefault(event.number, Row("")).state = "waits"
            case events.TrialEnded():
                row = self.rows.setdefault(event.number, Row(""))
                row.state, row.seconds = event.reason, event.seconds
                row.epoch = event.epochs or row.epoch
                if row.kept is not None and row.kept.get("loss") == event.value:
                    row.values = row.kept
            case events.NewBest():
                self.best = event.number
            case events.Progress():
                self.progress = event
            case events.Notice():
                self.notes.append(event.text)
            case events.Finished():
                self.summary = result_lines(event)

    def render(self) -> Group:
        """Draw the table, the newest notes and the bar; while images are read, the bar of these alone."""
        if self.reading is not None:
            return Group(self.reading)
        table = Table(title=escape(self.title), expand=False)
        shown = columns({"loss", "accuracy"}.union(*(row.values for row in self.rows.values())), self.metrics)
        labels = (escape(f"val {metric.label}") for metric in shown)
        for heading in ("trial", "parameters", "epoch", *labels, "seconds", "state"):
            table.add_column(heading, justify="left" if heading in ("parameters", "state") else "right")
        for number, row in sorted(self.rows.items()):
            found = ((metric, row.values.get(metric.name)) for metric in shown)
            texts = ("" if value is None else metric.text(value) for metric, value in found)
            figures = (*texts, f"{row.seconds:.1f}")
            style = "bold green" if number == self.best else "dim" if row.state not in ("running", "waits") else ""
            if number < 0:
                table.add_row("probe", escape(row.params), "-", *figures, escape(row.state), style=style)
                continue
            epoch = f"{row.epoch:.2g}/{self.epochs}" if row.epoch < 1 else f"{row.epoch:.0f}/{self.epochs}"
            table.add_row(str(number), escape(row.params), epoch, *figures, escape(row.state), style=style)
        return Group(table, *(escape(f"note: {note}") for note in self.notes[-3:]), *self._bar())

    def _bar(self) -> list[Progress]:
        if self.progress is None:
            return []
        bar = Progress(TextColumn("{task.description}"), BarColumn())
        left = "" if self.progress.seconds_left is None else f", about {clock(self.progress.seconds_left)} left"
        bar.add_task(
            f"{clock(self.progress.seconds)} spent{left}", total=1000, completed=round(1000 * self.progress.done)
        )
        return [bar]


def _kept(result: EpochResult) -> Mapping[str, float]:
    """Return the metrics of the weights that an epoch would keep."""
    return result.kept_values()
