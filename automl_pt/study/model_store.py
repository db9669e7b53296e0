"""The models that a study keeps: the best one published, the next best in their run directories."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from automl_pt.study.records import TrialRecord
from automl_pt.study.store.trials import TrialStore


@dataclass
class ModelStore:
    """`trials/NUMBER` are run directories; `model` is the finished model, which `publish(source, target)` replaces.

    Checkpoints exist of running and paused trials, and weights of those and of the best ended trials: as many as the
    settings keep, and during the search the runner-up's. With the default rule there are at most as many checkpoints as
    the quota of the last rung within the first epoch, plus one for trial 0 if it is outside that quota, because proxy
    runs leave none.
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
        """Return whether a trial's weights still exist."""
        return (self.output(number) / "model.json").exists()

    def put(self, number: int) -> None:
        """Publish a trial's model as the finished one."""
        self.publish(self.output(number), self.model)

    def tidy(self, records: Sequence[TrialRecord], keep: int) -> None:
        """Remove the files that ended trials no longer need, except the weights of the best `keep` of them.

        Running trials do not count among these, however good they are, because they may fail.
        """
        ended = [record for record in records if record.state in ("COMPLETE", "PRUNED", "FAIL")]
        order = ranked(ended)
        trials = [record for record in order if record.number >= 0]  # probes do not count
        kept = {record.number for record in (*order[:keep], *trials[:keep])}
        for record in ended:
            discard(self.output(record.number), weights=record.number not in kept)

    @staticmethod
    def worth_saving(records: Sequence[TrialRecord], keep: int) -> float:
        """Return the cost above which `tidy` would remove the weights of a trial that completes now."""
        costs = sorted(_cost(record) for record in ranked(records) if record.number >= 0 and record.state == "COMPLETE")
        return costs[keep - 1] if len(costs) >= keep else math.inf


def ranked(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Order the trials that count by the cost of the weights they kept, by default their loss; the first wins ties.

    Trials that failed or diverged do not count. Complete trials come before those still under way or pruned, whose
    learning rate never came to rest. A probe, whose number is below 0, comes before the first that has a higher cost.
    """
    counting = [
        record
        for record in records
        if record.value is not None
        and math.isfinite(record.value)
        and math.isfinite(_cost(record))
        and record.state in ("COMPLETE", "PRUNED", "RUNNING")
        and record.reason != "diverged"
    ]
    order = sorted(
        (record for record in counting if record.number >= 0),
        key=lambda record: (record.state != "COMPLETE", record.cost, record.number),
    )
    probes = sorted((record for record in counting if record.number < 0), key=lambda record: -_cost(record))
    for probe in probes:
        place = next((at for at, record in enumerate(order) if _cost(record) >= _cost(probe)), len(order))
        order.insert(place, probe)
    return order


def _cost(record: TrialRecord) -> float:
    return math.inf if record.cost is None else record.cost


def discard(output: Path, *, weights: bool) -> None:
    """Remove a run directory's checkpoints and, with `weights`, its model; history and run.json remain."""
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    if weights:
        (output / "model.json").unlink(missing_ok=True)  # first, because it states that the weights exist
        for path in sorted(output.glob("weights-*.safetensors")):
            path.unlink(missing_ok=True)


def publish_best(trial_store: TrialStore, model_store: ModelStore) -> TrialRecord | None:
    """Publish the best model, and return its trial; None if it is published already, or its trial is writing it."""
    with trial_store.allocation_lock():  # another coordinator may have published a better one meanwhile
        busy, published = {trial.number for trial in trial_store.busy()}, trial_store.best()
        for record in ranked(trial_store.models()):
            if record.number not in busy and published != [record.number, record.epochs]:
                model_store.put(record.number)
                trial_store.set_best([record.number, record.epochs])
                return record
            if published is not None and published[0] == record.number:
                return None
    return None
