"""Where the time went, from the histories of the runs: waiting for data, training, validation, saving, and the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from automl_pt.core.errors import StudyError
from automl_pt.core.text import counted, few
from automl_pt.reporting.run import RunReport, read_history, wall_seconds
from automl_pt.reporting.sections import Section, missing
from automl_pt.reporting.study import StudyReport
from automl_pt.study.store.study_files import read_object
from automl_pt.training.result import EpochResult


@dataclass
class Timing:
    """Seconds of the epochs read so far, by activity."""

    data: float = 0.0
    training: float = 0.0
    validation: float = 0.0
    saving: float = 0.0
    epochs: int = 0
    damaged: list[str] = field(default_factory=list)

    def add(self, history: Sequence[EpochResult], train_images: int) -> None:
        """Count the epochs of a run with so many training images."""
        for result in history:
            train = train_images / result.images_per_second if result.images_per_second > 0 else 0.0
            train = min(train, result.seconds)
            self.data += result.data_wait * train
            self.training += (1 - result.data_wait) * train
            self.validation += result.seconds - train
            self.saving += result.save_seconds or 0.0
            self.epochs += 1

    @property
    def total(self) -> float:
        """Return all seconds counted."""
        return self.data + self.training + self.validation + self.saving

    def section(self, rest: float | None, rest_name: str, note: str) -> Section:
        """Return the parts with their shares of the whole; `rest` is None if it is unknown."""
        parts: list[tuple[str, float | None]] = [
            ("training", self.training),
            ("validation", self.validation),
            ("saving", self.saving),
            ("waiting for data", self.data),
            (rest_name, None if rest is None else max(0.0, rest)),
        ]
        whole = sum(seconds or 0.0 for _, seconds in parts)
        shares = [
            {"name": name, "seconds": seconds, "share": seconds / whole if seconds is not None and whole else None}
            for name, seconds in parts
        ]
        return {"parts": shares, "epochs": self.epochs, "total_seconds": whole, "note": note}


def study_time(report: StudyReport) -> Section:
    """Sum the epochs of all trials; idle is the time in which a worker of the last search had none."""
    directory, spent = Path(report.directory), Timing()
    for trial in report.trials:
        folder = directory / "trials" / str(trial.number)
        try:
            record = read_object(folder / "run.json")
            spent.add(read_history(folder / "history.jsonl"), train_images(record))
        except StudyError:
            spent.damaged.append(f"trial {trial.number}")
    if not spent.epochs:
        reason = f"; damaged: {few(spent.damaged)}" if spent.damaged else ""
        return missing(f"No trial has written the record of an epoch{reason}.")
    result = read_object(directory / "result.json")
    slots, wall, busy = (result.get(name, 0) for name in ("slots", "seconds", "busy_seconds"))
    known = bool(slots)  # studies of earlier versions do not record it
    note = f"{counted(spent.epochs, 'epoch')} of all trials."
    if known:
        note += (
            f" The last search took {wall:.0f} s with {counted(slots, 'trial')} at a time; what is not an epoch of it "
            "is starting, decoding, comparing trials within an epoch, and waiting for others."
        )
    if spent.damaged:
        note += f" Not included, because their records are damaged: {few(spent.damaged)}."
    return spent.section(slots * wall - busy if known else None, "comparing, starting, idle", note)


def run_time(run: RunReport, history: Sequence[EpochResult]) -> Section:
    """Sum a run's epochs; the rest is its remaining time from start to end."""
    spent = Timing()
    spent.add(history, train_images(run.record))
    if not spent.epochs:
        return missing("No epoch has finished.")
    wall = wall_seconds(run.record)
    note = f"{counted(spent.epochs, 'epoch')}." + (
        " The rest is what passed between the run's first start and its end: decoding, starting, and pauses."
        if wall
        else ""
    )
    return spent.section(None if wall is None else wall - spent.total, "decoding, starting, idle", note)


def train_images(record: dict[str, Any]) -> int:
    """Return how many training images a run has, from its record; 0 if it is not recorded."""
    data = record.get("data")
    counts = data.get("counts") if isinstance(data, dict) else None
    images = counts.get("train") if isinstance(counts, dict) else None
    return images if isinstance(images, int) else 0
