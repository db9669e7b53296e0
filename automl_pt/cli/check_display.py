"""How `automl-pt check` prints what it found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from automl_pt.check import CheckReport, Finding
from automl_pt.cli.console import Lines, text
from automl_pt.core.text import shown_path

#: cases shown of one finding; --json lists all
MAX_ITEMS = 5
_STYLES = {"stop": "bold red", "falsify": "bold yellow", "note": "dim"}
_WORDS = {"stop": "stops training", "falsify": "wrong figures", "note": "note"}


def show(report: CheckReport, dataset: str, html: Path | None) -> None:
    """Print the summary, each finding with what training does about it, and the result."""
    console = Lines(highlight=False)
    counts = ", ".join(f"{split} {count:,}" for split, count in report.splits.items())
    formats = ", ".join(f"{name} {count:,}" for name, count in report.formats.items())
    console.print(text(f"{shown_path(dataset)}: {report.images:,} images ({counts}) in {len(report.classes)} classes"))
    cached = max(0, report.images - report.read)
    console.print(text(f"{formats or 'arrays'}; {report.images:,} files checked ({cached:,} from cache)"))
    for note in report.notes:
        console.print(text(note))
    for found in report.findings:
        _print_finding(console, found)
    if html is not None:
        console.print(Text(f"\npictures: {shown_path(html)}"))
    console.print(Text(_result(report)))


def _print_finding(console: Console, found: Finding) -> None:
    """Print a finding; each case is on one unbroken line, so that a path can be copied."""
    head = Text("\n").append(_WORDS[found.level], _STYLES[found.level])
    console.print(head.append(f": {len(found.items):,} x {found.what}"), soft_wrap=True)
    console.print(text(f"  training {found.training}"))
    console.print(text(f"  to do: {found.todo}"))
    for item in found.items[:MAX_ITEMS]:
        console.print(Text(f"    {item}"), soft_wrap=True)
    if len(found.items) > MAX_ITEMS:
        console.print(Text(f"    and {len(found.items) - MAX_ITEMS:,} more; --json lists all"))


def _result(report: CheckReport) -> str:
    stops = sum(len(found.items) for found in report.findings if found.level == "stop")
    wrong = sum(len(found.items) for found in report.findings if found.level == "falsify")
    if report.ok:
        return "No problems found"
    parts = ([f"{stops:,} stop training"] if stops else []) + ([f"{wrong:,} make its figures wrong"] if wrong else [])
    return f"Problems found: {' and '.join(parts)}"


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a progress callback that draws a bar on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield progress
