"""What `automl-pt studies compare` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from automl_pt.cli.console import stdout, text
from automl_pt.cli.tables import Column, fitted, percent
from automl_pt.reporting.compare_studies import Side, StudyComparison


def print_side_by_side(found: StudyComparison, console: Console | None = None) -> None:
    """Print a column for each study, then their difference."""
    console = console or stdout()
    pairs = zip(_rows(found.first), _rows(found.second), strict=True)
    rows = [(name, first, second) for (name, first), (_, second) in pairs]
    rows += [(name, str(first), str(second)) for name, (first, second) in found.other_settings.items()]
    columns = [
        Column(name, [row[place] for row in rows], text=True)
        for place, name in enumerate(("", found.first.name, found.second.name))
    ]
    console.print(fitted(columns, console.width)[0])
    for line in _verdict(found):
        console.print(text(line))


def _rows(side: Side) -> Iterator[tuple[str, str]]:
    yield "data", side.fingerprint[:12]
    yield "images", ", ".join(f"{count} {split}" for split, count in side.images.items() if count)
    yield from ((name.replace("_", " "), _shown(value)) for name, value in side.space.items())
    yield "ended", ", ".join(f"{count} {state}" for state, count in side.states.items()) or "-"
    yield "cost", f"{side.full_runs:.1f} full runs, {side.seconds:.0f} s of training"
    yield "best trial", "-" if side.best_trial is None else f"{side.best_trial}: {_params(side.params)}"
    yield "val loss", _figure(side.val_loss)
    yield "val accuracy", percent(side.val_accuracy)
    test = side.test or {}
    yield "test loss", _figure(test.get("loss"))
    yield "test accuracy", percent(test.get("accuracy"))


def _verdict(found: StudyComparison) -> Iterator[str]:
    yield from found.notes
    if found.paired is None:
        return
    gain = found.paired
    error = gain["loss_standard_error"]
    spread = "" if error is None else f" +- {error:.4f}"
    better = "lower" if gain["loss_gain"] > 0 else "higher"
    tied = "statistically tied" if gain["inside_noise"] else "a clear difference"
    yield (
        f"on the same {gain['images']} validation images the loss of {found.first.name} is {abs(gain['loss_gain']):.4f}"
        f"{spread} {better}: {tied}; accuracy {100 * gain['accuracy_gain']:+.2f} points (McNemar's exact p = "
        f"{gain['p_value']:.3g})"
    )
    yield "both models were chosen by these images, so both look slightly better than they are"


def _params(params: dict[str, Any]) -> str:
    shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in sorted(params.items())}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    return "-" if value is None else str(value)


def _figure(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"
