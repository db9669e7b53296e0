"""The models a study keeps: the best one published, the next best in their run directories, nothing of the others."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from automl_pt.study.records import TrialRecord


@dataclass
class ModelStore:
    """`trials/NUMBER` are run directories; `model` is the finished model. `publish(source, target)` replaces it whole.

    Checkpoints exist of trials that are running or paused, and weights of those and of the best that ended: as many as
    the settings keep, and during the search one more, the runner-up. With the default rule there are never more
    checkpoints than the quota of the last rung within the first epoch, and one for trial 0 where it is outside that
    quota: a run in miniature leaves none.
    """

    directory: Path
    publish: Callable[[Path, Path], None]

    @property
    def model(self) -> Path:
        """Return the finished model's directory."""
        return self.directory / "model"

    def output(self, number: int) -> Path:
        """Return a trial's run directory."""
        return self.directory / "trials" / str(number)

    def holds(self, number: int) -> bool:
        """Say whether a trial's weights are still there."""
        return (self.output(number) / "model.json").exists()

    def put(self, number: int) -> None:
        """Make a trial's model the finished one."""
        self.publish(self.output(number), self.model)

    def tidy(self, records: Sequence[TrialRecord], keep: int) -> None:
        """Remove what ended trials need no longer, except the weights of the best `keep` of them.

        Those still under way take nobody's place, however good they are: they may fail. What is gone stays gone.
        """
        ended = [record for record in records if record.state in ("COMPLETE", "PRUNED", "FAIL")]
        order = ranked(ended)
        trials = [record for record in order if record.number >= 0]  # a probe takes no trial's place
        kept = {record.number for record in (*order[:keep], *trials[:keep])}
        for record in ended:
            discard(self.output(record.number), weights=record.number not in kept)


def ranked(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Order the trials that count by the loss of the weights they kept; the first made wins ties.

    Trials that failed or diverged do not count. Complete trials come before those still under way or pruned, whose
    learning rate never came to rest. A probe, whose number is below 0, comes before the first that has a higher loss.
    """
    counting = [
        record
        for record in records
        if record.value is not None
        and math.isfinite(record.value)
        and record.state in ("COMPLETE", "PRUNED", "RUNNING")
        and record.reason != "diverged"
    ]
    order = sorted(
        (record for record in counting if record.number >= 0),
        key=lambda record: (record.state != "COMPLETE", record.value, record.number),
    )
    probes = sorted((record for record in counting if record.number < 0), key=lambda record: -_loss(record))
    for probe in probes:
        place = next((at for at, record in enumerate(order) if _loss(record) >= _loss(probe)), len(order))
        order.insert(place, probe)
    return order


def _loss(record: TrialRecord) -> float:
    return math.inf if record.value is None else record.value


def discard(output: Path, *, weights: bool) -> None:
    """Remove a run directory's checkpoints and, with `weights`, its model; history and run.json stay."""
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    if weights:
        (output / "model.json").unlink(missing_ok=True)  # first, for it says that the weights are there
        for path in sorted(output.glob("weights-*.safetensors")):
            path.unlink(missing_ok=True)
