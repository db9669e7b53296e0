"""The live table of a search: a row for each trial, columns for what varies, and a bar with the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from automl_pt.builtin.validation_metrics import BY_NAME
from automl_pt.cli.columns import folded
from automl_pt.cli.display import bar_columns
from automl_pt.cli.search_lines import clock, result_lines
from automl_pt.cli.tables import Column, fitted, heading, loss, metric_columns, parameter, varying
from automl_pt.plugins.metrics import Metric
from automl_pt.study import events
from automl_pt.study.records import ProbeRecord

#: width of a table if that of the terminal is unknown
WIDTH = 80
#: newest notes shown below the table
NOTES = 3


@dataclass
class Row:
    """One trial in the live table; `seconds` are those of its finished turns, `since` is the start of the current one.

    `ranked` is the loss of its short trial run, shown until an epoch gives a validation loss.
    """

    params: dict[str, Any]
    epoch: float = 0
    #: the metrics of validation by name
    values: Mapping[str, float] = field(default_factory=dict)
    ranked: float | None = None
    #: those of the epoch whose weights are kept, by which a finished trial is compared
    kept: Mapping[str, float] | None = None
    state: str = "running"
    seconds: float = 0.0
    since: float | None = None

    def spent(self, now: float) -> float:
        """Return the seconds spent so far, including the current turn."""
        return self.seconds + (0.0 if self.since is None else now - self.since)

    def pause(self, now: float) -> None:
        """End a turn."""
        self.seconds, self.since = self.spent(now), None

    @property
    def score(self) -> str:
        """Return the trial's validation loss, or the ranking loss of its short trial run after a ~."""
        if "loss" not in self.values and self.ranked is not None:
            return f"~{loss(self.ranked)}"
        return loss(self.values.get("loss"))


@dataclass
class LiveView:
    """A table of trials with a bar below it, kept up to date by events."""

    rows: dict[int, Row] = field(default_factory=dict)
    best: int | None = None
    title: str = "search"
    epochs: int = 0
    metrics: Mapping[str, Metric] = field(default_factory=lambda: BY_NAME)
    #: what chooses the best trial
    objective: str = "val_loss"
    notes: list[str] = field(default_factory=list)
    summary: list[str] = field(default_factory=list)
    progress: events.Progress | None = None
    #: what is done after the trials, and since when
    finishing: str | None = None
    finishing_since: float = 0.0
    #: the bar of the images read; None once the study has started
    reading: Progress | None = None
    clock: Callable[[], float] = time.monotonic

    def preparing(self, what: str, done: int, total: int) -> None:
        """Show the progress of reading images."""
        if self.reading is None:
            self.reading = Progress(*bar_columns())
            self.reading.add_task(what, total=total)
        self.reading.update(self.reading.task_ids[0], description=what, completed=done, total=total)

    def take(self, event: events.Event) -> None:
        """Update the view."""
        match event:
            case events.StudyStarted():
                self.title, self.epochs, self.reading = f"study {event.name}", event.epochs, None
                self.objective = event.objective
            case events.ProbeStarted() | events.PassDone() | events.ProbeEnded():
                self._probe(event)
            case events.NewBest():
                self.best = event.number
            case events.Progress():
                self.progress = event
            case events.Finishing():
                self.finishing, self.finishing_since = event.text, self.clock()
            case events.Notice():
                self.notes.append(event.text)
            case events.Finished():
                self.summary = result_lines(event)
            case _:
                self._trial(event)

    def _probe(self, event: events.ProbeStarted | events.PassDone | events.ProbeEnded) -> None:
        match event:
            case events.ProbeStarted():
                self.rows[event.number] = Row({"backbone": event.backbone}, state="features", since=self.clock())
            case events.PassDone():
                self.rows[event.number].state = f"features {event.done}/{event.total}"
            case events.ProbeEnded():
                self.rows[event.probe.number] = _probe_row(event.probe)

    def _trial(self, event: events.Event) -> None:
        now = self.clock()
        match event:
            case events.TrialStarted():
                row = self._row(event.number, event.params)
                state = "running" if event.rival is None else "rival, running"
                row.epoch, row.state, row.since = max(row.epoch, event.epochs_done), state, now
            case events.EpochDone():
                row, result = self._row(event.trial), event.result
                row.epoch, row.values = result.epoch, result.values()
                row.kept = result.kept_values() if result.is_best else row.kept
            case events.TrialRanked():
                row = self._row(event.trial)
                row.epoch, row.ranked = event.epoch, event.rank_loss
            case events.TrialPaused():
                row = self._row(event.number)
                row.pause(now)
                row.state = "paused"
            case events.TrialEnded():
                row = self._row(event.number)
                row.pause(now)
                row.state, row.seconds = event.reason, max(row.seconds, event.seconds)
                row.epoch = event.epochs or row.epoch
                if row.kept is not None and row.kept.get("loss") == event.value:
                    row.values = row.kept

    def _row(self, number: int, params: dict[str, Any] | None = None) -> Row:
        return self.rows.setdefault(number, Row(params or {}))

    def render(self, width: int = WIDTH) -> Group:
        """Draw the table, the newest notes and the bar; while images are read, the bar of these alone."""
        if self.reading is not None:
            return Group(self.reading)
        shown: list[Any] = [f"[bold]{escape(self.title)}[/bold]"]
        if self.rows:
            ordered = sorted(self.rows.items())
            table, dropped = fitted(self.columns(ordered), width, styles=[self._style(*one) for one in ordered])
            shown.append(table)
            if any(row.score.startswith("~") for row in self.rows.values()):
                shown.append("[dim]~ loss of a short trial run, measured differently from a validation loss[/dim]")
            if dropped:
                shown.append(f"[dim]not shown: {escape(', '.join(dropped))}[/dim]")
        notes = (escape(folded(f"note: {note}", width)) for note in self.notes[-NOTES:])
        return Group(*shown, *notes, *self._bar(width))

    def columns(self, rows: list[tuple[int, Row]]) -> list[Column]:
        """Return the columns: the trial, each setting that varies, and its results."""
        now = self.clock()
        trials = [row for number, row in rows if number >= 0]
        names = varying([row.params for row in trials])
        probes = [row.params for number, row in rows if number < 0]
        if len(probes) > 1 and "backbone" not in names:
            names.append("backbone")
        settings = [
            Column(
                heading(name),
                [parameter(row.params.get(name)) for _, row in rows],
                text=any(isinstance(row.params.get(name), str) for _, row in rows),
                optional=place,
            )
            for place, name in enumerate(names, start=1)
        ]
        return [
            Column("trial", [str(number) if number >= 0 else "probe" for number, _ in rows]),
            *settings,
            Column("epoch", [self._epoch(number, row) for number, row in rows]),
            Column("loss", [row.score for _, row in rows]),
            *metric_columns([row.values for _, row in rows], self.metrics, self.objective),
            Column("time", [clock(row.spent(now)) for _, row in rows]),
            Column("state", [row.state for _, row in rows], text=True),
        ]

    def _epoch(self, number: int, row: Row) -> str:
        if number < 0:
            return "-"
        return f"{row.epoch:.2g}/{self.epochs}" if row.epoch < 1 else f"{row.epoch:.0f}/{self.epochs}"

    def _style(self, number: int, row: Row) -> str:
        return "bold green" if number == self.best else "" if row.state in ("running", "paused") else "dim"

    @property
    def doing(self) -> str | None:
        """Return what is done after the trials, with the seconds that it has taken; None while they run."""
        if self.finishing is None or self.summary:  # the summary says how long it took
            return None
        return f"finishing: {self.finishing}, {clock(self.clock() - self.finishing_since)}"

    def _bar(self, width: int) -> list[Progress | str]:
        if self.doing is not None:
            return [escape(folded(self.doing, width))]
        if self.progress is None or self.summary:
            return []
        bar = Progress(TextColumn("{task.description}"), BarColumn())
        left = "" if self.progress.seconds_left is None else f", about {clock(self.progress.seconds_left)} left"
        bar.add_task(
            f"{clock(self.progress.seconds)} spent{left}", total=1000, completed=round(1000 * self.progress.done)
        )
        return [bar]


def _probe_row(found: ProbeRecord) -> Row:
    return Row(
        {"backbone": found.backbone},
        values=found.as_trial().metrics,
        state="linear probe" if found.failure is None else f"not used: {found.failure}",
        seconds=found.seconds,
    )
