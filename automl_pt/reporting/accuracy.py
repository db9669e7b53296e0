"""How accurate a study's best model is, and by how much it beats the default settings and the linear probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_pt.core.errors import StudyError
from automl_pt.core.text import counted
from automl_pt.reporting.run import read_history
from automl_pt.study.records import ProbeRecord, TrialRecord
from automl_pt.study.store.study_files import read_object
from automl_pt.training.result import EpochResult

Interval = tuple[float, float]
#: what an accuracy without a test split is worth
NO_TEST = "no test split: the model was chosen by these images, so expect slightly less on new ones"


@dataclass(frozen=True)
class Accuracy:
    """The share of validation images that the best model classifies correctly, and what there is to compare it with.

    `images` counts the validation images, 0 where the study does not say. `default` is the accuracy of trial 0, which
    has the documented default settings, `probe` that of the best linear probe; None where there is none, or where it is
    the best model itself.
    """

    value: float
    images: int
    test_images: int = 0
    test: float | None = None
    default: float | None = None
    probe: float | None = None

    def lines(self) -> list[str]:
        """Say the accuracy with its interval, with and without a test split, and the gains."""
        lines = [f"accuracy: {_share(self.value, self.images, 'validation')}"]
        if self.test is not None:
            lines.append(f"          {_share(self.test, self.test_images, 'test')}")
        else:
            lines.append(f"          {NO_TEST}")
        gains = [(self.default, "the default settings"), (self.probe, "the linear probe")]
        known = [(one, name) for one, name in gains if one is not None]
        parts = [f"{100 * (self.value - one):+.1f} points over {name} ({100 * one:.1f} %)" for one, name in known]
        return [*lines, *([f"gain:     {', '.join(parts)}"] if parts else [])]


def read_accuracy(
    directory: Path, best: TrialRecord | None, probes: Sequence[ProbeRecord], test: Mapping[str, Any] | None
) -> Accuracy | None:
    """Return the accuracy of a study's best trial from the files in its folder; None where they do not say it."""
    if best is None:
        return None
    counts = image_counts(directory, best.number)
    value = kept_accuracy(directory, best.number)
    if value is None:
        return None
    known = [probe.accuracy for probe in probes if probe.failure is None and probe.accuracy is not None]
    tested = test.get("accuracy") if test else None
    return Accuracy(
        value=value,
        images=counts.get("val", 0),
        test_images=counts.get("test", 0),
        test=tested if isinstance(tested, float) else None,
        default=kept_accuracy(directory, 0) if best.number != 0 else None,
        probe=max(known, default=None) if best.number >= 0 else None,
    )


def kept_accuracy(directory: Path, number: int) -> float | None:
    """Return the accuracy of the epoch whose weights a trial kept; None where it has none or its files are damaged."""
    try:
        history = read_history(directory / "trials" / str(number) / "history.jsonl")
    except StudyError:
        return None
    best = next((epoch for epoch in reversed(history) if epoch.is_best), None)
    return None if best is None else kept_figures(best)[1]


def kept_figures(result: EpochResult) -> tuple[float, float | None]:
    """Return loss and accuracy of the weights that an epoch would keep: the moving average's where that is lower."""
    if result.ema_val_loss is not None and result.ema_val_loss < result.val_loss:
        return result.ema_val_loss, result.ema_val_accuracy
    return result.val_loss, result.val_accuracy


def image_counts(directory: Path, number: int) -> dict[str, int]:
    """Return the images of each split, from a trial's record; empty where it does not say."""
    try:
        data = read_object(directory / "trials" / str(number) / "run.json").get("data")
    except StudyError:
        return {}
    counts = data.get("counts") if isinstance(data, dict) else None
    if not isinstance(counts, dict):
        return {}
    return {str(split): count for split, count in counts.items() if isinstance(count, int)}


def wilson(share: float, images: int) -> Interval | None:
    """Return the 95 % interval of a share of so many images; None without images."""
    from automl_pt.model.scoring import interval

    return interval(round(share * images), images) if images else None


def _share(share: float, images: int, split: str) -> str:
    found = wilson(share, images)
    if found is None:
        return f"{100 * share:.1f} % of the {split} images"
    between = f"95 % interval {100 * found[0]:.1f} to {100 * found[1]:.1f} %"
    return f"{100 * share:.1f} % of {counted(images, f'{split} image')} ({between})"
