"""The tables that `automl-pt evaluate` prints. Names are escaped, because they come from data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from automl_pt.cli.console import stdout, text
from automl_pt.cli.tables import Column, fitted, percent
from automl_pt.core.text import counted
from automl_pt.model.thresholds import PRECISION
from automl_pt.model.unsure import conditions, told

if TYPE_CHECKING:
    from automl_pt.model.calibration import Bin
    from automl_pt.model.paired import Paired
    from automl_pt.model.scoring import Scores
    from automl_pt.model.temperature import Temperature
    from automl_pt.model.thresholds import Threshold
    from automl_pt.model.unsure import Measured, UnsureRule

#: a larger confusion matrix is replaced by its most frequent confusions; `--json` has it
MAX_MATRIX = 15
MAX_PAIRS = 10
#: without --full: classes listed, the worst recall first
MAX_CLASSES = 20
MAX_UNREADABLE = 20


def print_scores(
    title: str,
    scores: Scores,
    notes: Sequence[str],
    unreadable: Sequence[tuple[str, str]],
    console: Console | None = None,
    *,
    full: bool = False,
    normalised: bool = False,
) -> None:
    """Print accuracy, recall and F1 by class, and the confusions; with `full` everything that was measured.

    The confusion matrix of --full holds counts, or with `normalised` shares of the true class.
    """
    console = console or stdout()
    console.print(text(title))
    for note in notes:
        console.print(text(f"note: {note}"))
    for name, reason in unreadable[:MAX_UNREADABLE]:
        console.print(text(f"not readable, skipped: {name}: {reason}"))
    if len(unreadable) > MAX_UNREADABLE:
        console.print(f"and {len(unreadable) - MAX_UNREADABLE} more that are not readable")
    for line in _figures(scores) if full else _short_figures(scores):
        console.print(line)
    _print(console, "", _full_classes(scores) if full else _classes(scores))
    if full:
        _print(console, "accuracy if only confident answers are accepted", _thresholds(scores.thresholds))
        _print(console, "how often a probability is right", _reliability(scores.calibration.bins))
    if scores.confusion is not None and full and len(scores.per_class) <= MAX_MATRIX:
        shown = "confusion matrix, shares of the true class" if normalised else "confusion matrix"
        _print(console, shown, _matrix(scores, normalised=normalised))
    elif scores.confusion is not None:
        _print_pairs(console, scores, full=full)
    if not full:
        console.print("--full shows precision, intervals, calibration, thresholds and the confusion matrix")


def print_paired(paired: Paired, console: Console | None = None) -> None:
    """Print how the model differs from the other one, image by image."""
    console = console or stdout()
    error = paired.loss_standard_error
    spread = "" if error is None else f" (standard error {error:.4f})"
    console.print(
        f"compared with the other model on the same {counted(paired.images, 'image')}: accuracy "
        f"{100 * paired.accuracy_difference:+.2f} points ({paired.only_first_right} correct in this model alone, "
        f"{paired.only_second_right} in the other alone; McNemar's exact p = {paired.p_value:.3g}), "
        f"loss {paired.loss_difference:+.4f}{spread}"
    )


def print_temperature(found: Temperature, console: Console | None = None) -> None:
    """Print what a fitted temperature does on the images it was fitted on."""
    console = console or stdout()
    console.print(
        f"saved with the model: temperature {found.temperature:.4g}, fitted on these {found.images} images; "
        f"loss {found.loss[0]:.4f} before, {found.loss[1]:.4f} after; ECE {found.ece[0]:.4f} before, "
        f"{found.ece[1]:.4f} after. The predicted classes do not change"
    )


def print_unsure(measured: Measured, max_error: float, console: Console | None = None) -> None:
    """Print what the model's rule for unsure answers does on these images."""
    console = console or stdout()
    for line in told(measured, max_error):
        console.print(line)


def print_rule(rule: UnsureRule, console: Console | None = None) -> None:
    """Print a fitted rule for unsure answers, and what it does on the test images, or on those it was fitted on."""
    console = console or stdout()
    console.print(
        f"saved with the model: an answer is sure if {conditions(rule)}; at most {100 * rule.max_error:g} % of images "
        "like these get a sure answer that is wrong"
    )
    if rule.measured is not None:
        console.print(f"on the {rule.measured.split} split:")
        for line in told(rule.measured, rule.max_error):
            console.print(f"  {line}")


def _print(console: Console, title: str, columns: Sequence[Column]) -> None:
    """Print a table below its title, and name the columns that do not fit."""
    console.print()
    if title:
        console.print(title)
    table, dropped = fitted(columns, console.width)
    console.print(table)
    if dropped:
        console.print(text(f"not shown: {', '.join(dropped)}; a wider terminal or --json shows all"))


def _short_figures(scores: Scores) -> Iterable[str]:
    low, high = scores.accuracy_interval
    yield f"images    {scores.images}"
    yield f"accuracy  {percent(scores.accuracy)} (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    yield f"macro     recall {percent(scores.macro['recall'])}, F1 {percent(scores.macro['f1'])}"


def _figures(scores: Scores) -> Iterable[str]:
    low, high = scores.accuracy_interval
    yield f"images    {scores.images}"
    yield f"loss      {scores.loss:.4f}"
    yield f"accuracy  {scores.accuracy:.4f}  (95 % interval {low:.4f} to {high:.4f})"
    if scores.top5 is not None:
        yield f"top 5     {scores.top5:.4f}"
    yield f"ECE       {scores.calibration.ece:.4f}  (expected calibration error)"
    for name, figures in (("macro", scores.macro), ("weighted", scores.weighted)):
        yield f"{name:9} precision {figures['precision']:.4f}, recall {figures['recall']:.4f}, F1 {figures['f1']:.4f}"


def _classes(scores: Scores) -> list[Column]:
    """Return recall and F1 by class; of many classes those with the lowest recall."""
    entries = list(scores.per_class)
    if len(entries) > MAX_CLASSES:
        entries = sorted(entries, key=lambda entry: (entry.recall is None, entry.recall))[:MAX_CLASSES]
    return [
        Column(_heading(len(scores.per_class)), [entry.name for entry in entries], text=True),
        Column("images", [str(entry.images) for entry in entries]),
        Column("recall", [percent(entry.recall) for entry in entries]),
        Column("F1", [percent(entry.f1) for entry in entries]),
    ]


def _heading(classes: int) -> str:
    return "class" if classes <= MAX_CLASSES else f"class (the worst {MAX_CLASSES} of {classes})"


def _full_classes(scores: Scores) -> list[Column]:
    entries, own = scores.per_class, scores.class_thresholds
    columns = [Column("class", [entry.name for entry in entries], text=True)]
    columns.append(Column("images", [str(entry.images) for entry in entries]))
    for place, name in enumerate(("precision", "recall", "f1")):
        values = [getattr(entry, name) for entry in entries]
        spreads = [getattr(entry, f"{name}_interval") for entry in entries]
        shown = "F1" if name == "f1" else name
        columns.append(Column(shown, [_figure(value) for value in values]))
        columns.append(
            Column("95 %", [_spread(spread) for spread in spreads], optional=3 - place, name=f"interval of {shown}")
        )
    limit = f"p for {PRECISION:.0%} precision"
    columns.append(Column(limit, [_figure(one.probability) for one in own], optional=4))
    return columns


def _thresholds(entries: Sequence[Threshold]) -> list[Column]:
    return [
        Column("probability", [f"{entry.probability:g}" for entry in entries]),
        Column("images", [str(entry.images) for entry in entries]),
        Column("coverage", [_figure(entry.coverage) for entry in entries]),
        Column("accuracy", [_figure(entry.accuracy) for entry in entries]),
        Column("95 %", [_spread(entry.accuracy_interval) for entry in entries]),
    ]


def _reliability(bins: Sequence[Bin]) -> list[Column]:
    return [
        Column("mean probability", [_figure(entry.confidence) for entry in bins]),
        Column("accuracy", [_figure(entry.accuracy) for entry in bins]),
        Column("images", [str(entry.images) for entry in bins]),
    ]


def _matrix(scores: Scores, *, normalised: bool) -> list[Column]:
    """Return the matrix with the true classes down; the columns of the predicted ones have the classes' numbers."""
    assert scores.confusion is not None
    assert scores.confusion_normalised is not None
    shares = [[f"{share:.3f}" if share else "." for share in row] for row in scores.confusion_normalised]
    counts = [[str(count or ".") for count in row] for row in scores.confusion]
    cells = shares if normalised else counts
    columns = [
        Column("true, then predicted by number", [entry.name for entry in scores.per_class], text=True),
        Column("", [str(number) for number in range(len(cells))]),
    ]
    return columns + [Column(str(number), [row[number] for row in cells]) for number in range(len(cells))]


def _print_pairs(console: Console, scores: Scores, *, full: bool) -> None:
    assert scores.confusion is not None
    pairs = [
        (count, true, predicted)
        for true, row in enumerate(scores.confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    if not pairs:
        return
    listed = sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[: MAX_PAIRS if full else MAX_PAIRS // 2]
    names = [entry.name for entry in scores.per_class]
    columns = [
        Column("true", [names[true] for _, true, _ in listed], text=True),
        Column("predicted", [names[predicted] for *_, predicted in listed], text=True),
        Column("images", [str(count) for count, *_ in listed]),
    ]
    _print(console, f"commonest confusions{'' if len(listed) == len(pairs) else '; --json has all'}", columns)


def _spread(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else "{:.3f} to {:.3f}".format(*interval)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
