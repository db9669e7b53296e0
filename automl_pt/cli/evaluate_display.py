"""The tables that `automl-pt evaluate` prints. Names are shown escaped: they come from data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from automl_pt.cli.console import stdout, text
from automl_pt.model.thresholds import PRECISION

if TYPE_CHECKING:
    from automl_pt.model.calibration import Bin
    from automl_pt.model.paired import Paired
    from automl_pt.model.scoring import Scores
    from automl_pt.model.temperature import Temperature
    from automl_pt.model.thresholds import Threshold

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
    *,
    normalised: bool = False,
) -> None:
    """Print the figures, tables of classes and thresholds, and the confusion matrix, or its largest entries.

    The matrix holds counts, or with `normalised` shares of the true class.
    """
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
    console.print(_class_table(scores))
    console.print(_threshold_table(scores.thresholds))
    console.print(_reliability_table(scores.calibration.bins))
    if scores.confusion is not None:
        small = len(scores.per_class) <= MAX_MATRIX
        console.print(_matrix(scores, normalised=normalised) if small else _pairs(scores))


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


def print_temperature(found: Temperature, console: Console | None = None) -> None:
    """Print what a fitted temperature does on the images it was fitted on."""
    console = console or stdout()
    console.print(
        f"kept beside the model: temperature {found.temperature:.4g}, fitted on these {found.images} images; "
        f"loss {found.loss[0]:.4f} before, {found.loss[1]:.4f} at it; ECE {found.ece[0]:.4f} before, "
        f"{found.ece[1]:.4f} at it. The predicted classes are the same"
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


def _class_table(scores: Scores) -> Table:
    table = Table("class", box=box.SIMPLE)
    for name in ("images", "precision", "95 %", "recall", "95 %", "F1", "95 %", f"from p for {PRECISION:.0%}"):
        table.add_column(name, justify="right")
    for entry, own in zip(scores.per_class, scores.class_thresholds, strict=True):
        pairs = (
            (entry.precision, entry.precision_interval),
            (entry.recall, entry.recall_interval),
            (entry.f1, entry.f1_interval),
        )
        figures = [cell for value, spread in pairs for cell in (_figure(value), _spread(spread))]
        table.add_row(text(entry.name), str(entry.images), *figures, _figure(own.probability))
    return table


def _threshold_table(entries: Sequence[Threshold]) -> Table:
    table = Table(title="answers only from a probability on", title_justify="left", box=box.SIMPLE)
    for name in ("probability", "images", "coverage", "accuracy", "95 %"):
        table.add_column(name, justify="right")
    for entry in entries:
        figures = (_figure(entry.coverage), _figure(entry.accuracy), _spread(entry.accuracy_interval))
        table.add_row(f"{entry.probability:g}", str(entry.images), *figures)
    return table


def _reliability_table(bins: Sequence[Bin]) -> Table:
    table = Table(title="how often a probability is right", title_justify="left", box=box.SIMPLE)
    for name in ("mean probability", "accuracy", "images"):
        table.add_column(name, justify="right")
    for entry in bins:
        table.add_row(_figure(entry.confidence), _figure(entry.accuracy), str(entry.images))
    return table


def _matrix(scores: Scores, *, normalised: bool) -> Table:
    assert scores.confusion is not None
    assert scores.confusion_normalised is not None
    title = "confusion matrix, shares of the true class" if normalised else "confusion matrix"
    table = Table("true, then predicted", title=title, title_justify="left", box=box.SIMPLE)
    names = [text(entry.name) for entry in scores.per_class]
    for name in names:
        table.add_column(name, justify="right")
    shares = ([f"{share:.3f}" if share else "." for share in row] for row in scores.confusion_normalised)
    counts = ([str(count or ".") for count in row] for row in scores.confusion)
    for index, (name, row) in enumerate(zip(names, shares if normalised else counts, strict=True)):
        table.add_row(name, *(f"[bold]{cell}[/bold]" if column == index else cell for column, cell in enumerate(row)))
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


def _spread(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else "{:.3f} to {:.3f}".format(*interval)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
