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
from automl_pt.study.store.study_files import image_counts

Interval = tuple[float, float]
#: added to an accuracy without a test split
NO_TEST = "no test split: the model was chosen by these images, so expect slightly less on new ones"
NOT_TESTED = "the test images were not measured; the model was chosen by these, so expect slightly less on new ones"


@dataclass(frozen=True)
class Accuracy:
    """The share of validation images that the best model classifies correctly, and figures to compare it with.

    `images` counts the validation images, 0 if unknown. `default` is the accuracy of trial 0, which has the documented
    default settings, `probe` that of the best linear probe; None if missing, or if it is the best model itself.
    """

    value: float
    images: int
    test_images: int = 0
    test: float | None = None
    default: float | None = None
    probe: float | None = None

    def lines(self) -> list[str]:
        """Return lines with the accuracy, its interval and the gains."""
        lines = [f"accuracy: {_share(self.value, self.images, 'validation')}"]
        if self.test is not None:
            lines.append(f"          {_share(self.test, self.test_images, 'test')}")
        else:
            lines.append(f"          {NOT_TESTED if self.test_images else NO_TEST}")
        gains = [(self.default, "the default settings"), (self.probe, "the linear probe")]
        known = [(one, name) for one, name in gains if one is not None]
        parts = [f"{100 * (self.value - one):+.1f} points over {name} ({100 * one:.1f} %)" for one, name in known]
        return [*lines, *([f"gain:     {', '.join(parts)}"] if parts else [])]


def read_accuracy(
    directory: Path,
    best: TrialRecord | None,
    trials: Sequence[TrialRecord],
    probes: Sequence[ProbeRecord],
    test: Mapping[str, Any] | None,
) -> Accuracy | None:
    """Return the accuracy of a study's best trial and of what it is compared with; None where it is not recorded."""
    value = None if best is None else kept_metrics(directory, best).get("accuracy")
    if best is None or value is None:
        return None
    counts = image_counts(directory, best.number)
    first = next((trial for trial in trials if trial.number == 0), None)
    known = [probe.accuracy for probe in probes if probe.failure is None and probe.accuracy is not None]
    tested = test.get("accuracy") if test else None
    return Accuracy(
        value=value,
        images=counts.get("val", 0),
        test_images=counts.get("test", 0),
        test=tested if isinstance(tested, float) else None,
        default=kept_metrics(directory, first).get("accuracy") if first is not None and best.number != 0 else None,
        probe=max(known, default=None) if best.number >= 0 else None,
    )


def kept_metrics(directory: Path, trial: TrialRecord) -> Mapping[str, float]:
    """Return the metrics of the weights that a trial kept, by name.

    Trials of earlier versions have them in their history; empty if that is damaged.
    """
    if trial.metrics:
        return trial.metrics
    try:
        history = read_history(directory / "trials" / str(trial.number) / "history.jsonl")
    except StudyError:
        return {}
    best = next((epoch for epoch in reversed(history) if epoch.is_best), None)
    return {} if best is None else best.kept_values()


def wilson(share: float | None, images: int) -> Interval | None:
    """Return the 95 % interval of a share of so many images; None without images, or without a share."""
    from automl_pt.model import intervals

    return intervals.wilson(round(share * images), images) if images and share is not None else None


def _share(share: float, images: int, split: str) -> str:
    found = wilson(share, images)
    if found is None:
        return f"{100 * share:.1f} % of the {split} images"
    between = f"95 % interval {100 * found[0]:.1f} to {100 * found[1]:.1f} %"
    return f"{100 * share:.1f} % of {counted(images, f'{split} image')} ({between})"
