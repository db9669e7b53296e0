"""The progress of a search or training: drawn in the cell of a notebook, printed as the commands do elsewhere.

A notebook's cell is redrawn through IPython's own display handle, which every notebook program has, and which keeps the
last drawing in the saved file; a widget would need a further package and is lost when the notebook is saved.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from automl_pt.cli.display import LineDisplay, metric_texts
from automl_pt.cli.live_table import NOTES, LiveView
from automl_pt.cli.search_display import SearchDisplay, search_display
from automl_pt.cli.search_lines import clock
from automl_pt.cli.tables import FURTHER
from automl_pt.reporting.html import fragment
from automl_pt.study import events
from automl_pt.training.result import EpochResult

#: seconds between two drawings, and how many times the last one's own duration, so that drawing takes little time
PAUSE, SHARE = 0.5, 20
#: width of the text that is shown where HTML cannot be
WIDTH = 100
STOPPED = "stopped; everything finished so far is kept; run the cell again to continue"


def is_shown(show: bool | None) -> bool:
    """Return whether progress is shown: as given, by default in a notebook alone."""
    return in_notebook() if show is None else show


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook; imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


@contextmanager
def showing() -> Iterator[SearchDisplay]:
    """Show a search: live in a notebook's cell, elsewhere as `automl-pt search` does."""
    if not in_notebook():
        with search_display(quiet=False, as_json=False) as display:
            yield display
        return
    search = SearchCell()
    with search.cell.kept():
        yield SearchDisplay(search.show, search.preparing)


def shown_epochs(results: Iterator[EpochResult]) -> Iterator[EpochResult]:
    """Yield the epochs, each after it was shown: as a table and curve in a notebook, elsewhere as a line."""
    if not in_notebook():
        lines = LineDisplay()
        for result in results:
            lines.epoch(result)
            yield result
        return
    done, cell = list[EpochResult](), Cell()
    with cell.kept():
        for result in results:
            done.append(result)
            cell.draw(lambda: _epochs_html(done), lambda: _epochs_text(done), now=result.reason is not None)
            yield result


@dataclass
class Cell:
    """The output of a notebook's cell, redrawn in place and not too often."""

    clock: Callable[[], float] = time.monotonic
    _handle: Any = None
    _next: float = 0.0
    _last: tuple[Callable[[], str], Callable[[], RenderableType]] | None = None

    def draw(self, html: Callable[[], str], text: Callable[[], RenderableType], *, now: bool = False) -> None:
        """Draw, if it is time for it or `now`; the last drawing is never lost, see `kept`."""
        self._last = html, text
        if self.clock() < self._next and not now:
            return
        start, self._last = self.clock(), None
        self._put({"text/html": html(), "text/plain": _plain(text())})
        end = self.clock()
        self._next = end + max(PAUSE, SHARE * (end - start))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Draw what is left at the end, and say how to continue after a stop."""
        try:
            yield
        except (KeyboardInterrupt, GeneratorExit) as stop:
            self._finish()
            if isinstance(stop, KeyboardInterrupt):
                print(STOPPED)
            raise
        finally:
            self._finish()

    def _finish(self) -> None:
        if self._last is not None:
            self.draw(*self._last, now=True)

    def _put(self, data: dict[str, str]) -> None:
        from IPython.display import display

        if self._handle is None:
            # IPython has no types
            self._handle = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(data, raw=True)


@dataclass
class SearchCell:
    """A search in a notebook's cell: its table of trials, their curves, the newest notes, and the time left."""

    cell: Cell = field(default_factory=Cell)
    view: LiveView = field(default_factory=LiveView)
    losses: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    complete: set[int] = field(default_factory=set)
    _reading: tuple[str, int, int] | None = None

    def preparing(self, what: str, done: int, total: int) -> None:
        """Show the progress of reading images."""
        self._reading = what, done, total
        share = done / total if total else 0.0
        text = f"{what}: {done} of {total}"
        self.cell.draw(lambda: fragment.fragment(fragment.bar(share, text)), lambda: Text(text))

    def show(self, event: events.Event) -> None:
        """Take an event and draw the cell."""
        self.view.take(event)
        if isinstance(event, events.EpochDone):
            self.losses.setdefault(event.trial, []).append((event.result.epoch, event.result.val_loss))
        if isinstance(event, events.TrialEnded) and event.state == "COMPLETE":
            self.complete.add(event.number)
        self.cell.draw(self.html, lambda: self.view.render(WIDTH), now=isinstance(event, events.Finished))

    def html(self) -> str:
        """Return the whole cell."""
        view = self.view
        parts: list[str] = [fragment.heading(view.title)]
        if view.rows:
            rows = sorted(view.rows.items())
            columns = [column for column in view.columns(rows) if column.optional < FURTHER]
            parts.append(
                fragment.table(
                    [column.heading for column in columns],
                    list(zip(*(column.cells for column in columns), strict=True)),
                    texts=[place for place, column in enumerate(columns) if column.text],
                    best=next((place for place, (number, _) in enumerate(rows) if number == view.best), None),
                )
            )
        parts.append(fragment.loss_curves(self._curves()))
        parts += [fragment.line(f"note: {note}") for note in view.notes[-NOTES:]]
        return fragment.fragment(*parts, *self._bar())

    def _curves(self) -> list[dict[str, Any]]:
        best = self.view.best
        return [
            {"best": number == best, "complete": number in self.complete, "points": points}
            for number, points in sorted(self.losses.items())
        ]

    def _bar(self) -> list[str]:
        progress = self.view.progress
        if self.view.doing is not None:
            return [fragment.line(self.view.doing)]
        if progress is None or self.view.summary:
            return []
        left = "" if progress.seconds_left is None else f", about {clock(progress.seconds_left)} left"
        return [fragment.bar(progress.done, f"{clock(progress.seconds)} spent{left}")]


def _epochs_html(done: Sequence[EpochResult]) -> str:
    best = max((place for place, result in enumerate(done) if result.is_best), default=None)
    names = ["epoch", "train loss", "val loss", "val accuracy", "learning rate", "time"]
    rows = [
        (one.epoch, f"{one.train_loss:.4f}", f"{one.val_loss:.4f}", f"{100 * one.val_accuracy:.1f} %", f"{one.lr:.3g}")
        + (clock(one.seconds),)
        for one in done
    ]
    plain = [{"epoch": one.epoch, "train_loss": one.train_loss, "val_loss": one.val_loss} for one in done]
    curve = fragment.run_curve(plain, None if best is None else plain[best])
    ended = [fragment.line(f"ended: {done[-1].reason}")] if done[-1].reason else []
    notes = [fragment.line(f"note: {note}") for one in done for note in one.notes]
    return fragment.fragment(fragment.table(names, rows, best=best), curve, *notes, *ended)


def _epochs_text(done: Sequence[EpochResult]) -> RenderableType:
    lines = (f"epoch {one.epoch}: {', '.join(metric_texts(one.values(), LiveView().metrics))}" for one in done)
    return Text("\n".join(lines))


def _plain(drawing: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False, color_system=None, force_jupyter=False)
    with console.capture() as capture:
        console.print(drawing)
    return capture.get().rstrip("\n")
