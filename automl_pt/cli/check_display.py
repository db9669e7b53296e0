"""How a check shows what it found."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from automl_pt.check import CheckReport, Finding
from automl_pt.core.text import printable

#: cases told of one finding; --json tells all
MAX_ITEMS = 5
_STYLES = {"stop": "bold red", "falsify": "bold yellow", "note": "dim"}
_WORDS = {"stop": "stops", "falsify": "falsifies", "note": "note"}


def show(report: CheckReport, dataset: str, html: Path | None) -> None:
    """Print the summary, the findings as a table, and the verdict."""
    console = Console(highlight=False)
    counts = ", ".join(f"{split} {count:,}" for split, count in report.splits.items())
    formats = ", ".join(f"{name} {count:,}" for name, count in report.formats.items())
    console.print(Text(f"{printable(dataset)}: {report.images:,} images ({counts}) in {len(report.classes)} classes"))
    console.print(Text(f"{formats or 'arrays'}; {report.read:,} files read, the others are known"))
    for note in report.notes:
        console.print(Text(printable(note)))
    if report.findings:
        console.print(_table(report.findings))
    for found in report.findings:
        console.print(Text(f"\n{found.what}:"))
        _print_items(console, found)
    if html is not None:
        console.print(Text(f"pictures: {printable(html)}"))
    console.print(Text(_verdict(report)))


def _table(findings: tuple[Finding, ...]) -> Table:
    table = Table("level", "count", "found", "training then")
    for found in findings:
        level = Text(_WORDS[found.level], _STYLES[found.level])
        table.add_row(level, f"{len(found.items):,}", Text(found.what), Text(found.training))
    return table


def _print_items(console: Console, found: Finding) -> None:
    """Print cases line by line, unbroken, so that a path can be copied."""
    for item in found.items[:MAX_ITEMS]:
        console.print(Text(f"  {item}"), soft_wrap=True)
    if len(found.items) > MAX_ITEMS:
        console.print(Text(f"  and {len(found.items) - MAX_ITEMS:,} more; --json lists all"))


def _verdict(report: CheckReport) -> str:
    stops = sum(len(found.items) for found in report.findings if found.level == "stop")
    wrong = sum(len(found.items) for found in report.findings if found.level == "falsify")
    if report.ok:
        return "nothing would stop training or falsify its figures"
    parts = ([f"{stops:,} would stop training"] if stops else []) + ([f"{wrong:,} would falsify it"] if wrong else [])
    return f"problems: {' and '.join(parts)}"
