"""The tables that `automl-pt evaluate` prints. Names are shown escaped: they come from data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from automl_pt.cli.console import stdout, text

if TYPE_CHECKING:
    from automl_pt.model.paired import Paired
    from automl_pt.model.scoring import ClassScore, Scores

#: a larger confusion matrix is for `--json`; instead the commonest confusions are listed
MAX_MATRIX = 15
MAX_PAIRS = 10
MAX_UNREADABLE = 20


def print_scores(
    title: str,
    scores: Scores,
    notes: Sequence[str],
    unreadable: Sequence[tuple[str, str]],
    console: Console | None = None,
) -> None:
    """Print the figures, a table of classes, and the confusion matrix, or its largest entries."""
    console = console or stdout()
    console.print(text(title))
    for note in notes:
        console.print(text(f"note: {note}"))
    for name, reason in unreadable[:MAX_UNREADABLE]:
        console.print(text(f"not readable, left out: {name}: {reason}"))
    if len(unreadable) > MAX_UNREADABLE:
        console.print(f"and {len(unreadable) - MAX_UNREADABLE} more that are not readable")
    for line in _figures(scores):
        console.print(line)
    console.print(_class_table(scores.per_class))
    if scores.confusion is not None:
        small = len(scores.per_class) <= MAX_MATRIX
        console.print(_matrix(scores) if small else _pairs(scores))


def print_paired(paired: Paired, console: Console | None = None) -> None:
    """Print how the model differs from the other one, image by image."""
    console = console or stdout()
    error = paired.loss_standard_error
    spread = "" if error is None else f" (standard error {error:.4f})"
    console.print(
        f"less the other model, on the same {paired.images} images: accuracy {paired.accuracy_difference:+.4f} "
        f"({paired.only_first_right} right in this alone, {paired.only_second_right} in the other alone; McNemar's "
        f"exact p = {paired.p_value:.3g}), loss {paired.loss_difference:+.4f}{spread}"
    )


def _figures(scores: Scores) -> Iterable[str]:
    low, high = scores.accuracy_interval
    yield f"images    {scores.images}"
    yield f"loss      {scores.loss:.4f}"
    yield f"accuracy  {scores.accuracy:.4f}  (95 %: {low:.4f} to {high:.4f})"
    if scores.top5 is not None:
        yield f"top 5     {scores.top5:.4f}"
    yield f"ECE       {scores.calibration.ece:.4f}  (expected calibration error)"
    for name, figures in (("macro", scores.macro), ("weighted", scores.weighted)):
        yield f"{name:9} precision {figures['precision']:.4f}, recall {figures['recall']:.4f}, F1 {figures['f1']:.4f}"


def _class_table(classes: Sequence[ClassScore]) -> Table:
    table = Table("class", box=box.SIMPLE)
    for name in ("images", "precision", "recall", "95 % of recall", "F1"):
        table.add_column(name, justify="right")
    for entry in classes:
        spread = "-" if entry.recall_interval is None else "{:.3f} to {:.3f}".format(*entry.recall_interval)
        figures = (_figure(entry.precision), _figure(entry.recall), spread, _figure(entry.f1))
        table.add_row(text(entry.name), str(entry.images), *figures)
    return table


def _matrix(scores: Scores) -> Table:
    assert scores.confusion is not None
    table = Table("true, then predicted", title="confusion matrix", title_justify="left", box=box.SIMPLE)
    names = [text(entry.name) for entry in scores.per_class]
    for name in names:
        table.add_column(name, justify="right")
    for index, (name, row) in enumerate(zip(names, scores.confusion, strict=True)):
        cells = [f"[bold]{count}[/bold]" if column == index else str(count or ".") for column, count in enumerate(row)]
        table.add_row(name, *cells)
    return table


def _pairs(scores: Scores) -> Table:
    assert scores.confusion is not None
    pairs = [
        (count, true, predicted)
        for true, row in enumerate(scores.confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    table = Table(
        "true",
        "predicted",
        "images",
        title="commonest confusions; --json has all",
        title_justify="left",
        box=box.SIMPLE,
    )
    for count, true, predicted in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[:MAX_PAIRS]:
        names = (scores.per_class[index].name for index in (true, predicted))
        table.add_row(*(text(name) for name in names), str(count))
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
