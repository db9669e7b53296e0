"""How `automl-pt search` shows its events: a live table on a terminal, plain lines elsewhere, JSON lines on request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from rich.console import Console, Group
from rich.live import Live

from automl_pt.builtin.validation_metrics import BY_NAME
from automl_pt.cli.console import Lines
from automl_pt.cli.live_table import LiveView
from automl_pt.cli.search_lines import Opening, clock, describe
from automl_pt.core.files import to_json
from automl_pt.plugins.metrics import Metric
from automl_pt.study import events


@dataclass(frozen=True)
class SearchDisplay:
    """What `automl-pt search` shows: the progress of reading images, then events."""

    show: Callable[[events.Event], None]
    preparing: Callable[[str, int, int], None] = lambda what, done, total: None


@contextmanager
def search_display(*, quiet: bool, as_json: bool, metrics: Mapping[str, Metric] = BY_NAME) -> Iterator[SearchDisplay]:
    """Choose how events are shown; `metrics` are the metrics known here."""
    if quiet:
        yield SearchDisplay(lambda event: None)
    elif as_json:
        yield SearchDisplay(lambda event: print(to_json(event.to_dict()), flush=True))
    elif sys.stdout.isatty():
        with _live(metrics) as display:
            yield display
    else:
        yield SearchDisplay(_Lines(Console(highlight=False, soft_wrap=True), metrics))


@contextmanager
def _live(metrics: Mapping[str, Metric]) -> Iterator[SearchDisplay]:
    console, view, opening = Lines(highlight=False), LiveView(metrics=metrics), Opening()
    changing = Lock()  # another thread draws the table, so that the times of running trials advance

    def drawn() -> Group:
        with changing:
            return view.render(console.width)

    with Live(get_renderable=drawn, console=console, refresh_per_second=4) as live:

        def show(event: events.Event) -> None:
            for line in opening.lines(event):
                live.console.print(line)
            with changing:
                view.take(event)

        def preparing(what: str, done: int, total: int) -> None:
            with changing:
                view.preparing(what, done, total)

        yield SearchDisplay(show, preparing)
    for line in view.summary:
        console.print(line)


class _Lines:
    """Prints events as lines, and an estimate of the whole time after the first epochs."""

    def __init__(self, console: Console, metrics: Mapping[str, Metric]) -> None:
        self._console, self._metrics = console, metrics
        self._opening, self._has_estimate = Opening(), False

    def __call__(self, event: events.Event) -> None:
        """Print an event."""
        for line in self._opening.lines(event) or describe(event, self._metrics):
            self._console.print(line)
        if isinstance(event, events.Progress) and event.seconds_left is not None and not self._has_estimate:
            self._has_estimate = True
            self._console.print(f"time: about {clock(event.seconds + event.seconds_left)} in all")
