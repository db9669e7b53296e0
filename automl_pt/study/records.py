"""What is known of a study's trials, as plain values: what reports, listings and results are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


def title(number: int) -> str:
    """Return what a person calls a trial, or a probe, whose number is below 0."""
    return f"trial {number}" if number >= 0 else "the probe" if number == -1 else f"probe {-number}"


@dataclass(frozen=True)
class TrialRecord:
    """One trial as it stands in the storage.

    `state` is Optuna's word: RUNNING (a paused trial too), COMPLETE, PRUNED, FAIL or WAITING. `value` is the validation
    loss of the weights the trial kept, and None where it kept none. `epochs` counts the epochs done, `seconds` the time
    spent in them. `reason` says why the trial ended (`completed`, `patience`, `diverged`, `pruned`, or `failed: ...`),
    or what it is doing (`running`, `paused`). `losses` maps an epoch to its validation loss. `ranks` maps the points,
    in epochs, at which the pruning rule compared it to the loss by which it did; a fraction lies within the first
    epoch, and a trial dropped there has this figure alone.
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    epochs: int
    seconds: float
    reason: str
    losses: dict[int, float]
    ranks: dict[float, float] = field(default_factory=dict)

    @property
    def ranked_at(self) -> float | None:
        """Return the point, in epochs, at which it was compared last; None before the first."""
        return max(self.ranks, default=None)

    @property
    def rank_loss(self) -> float | None:
        """Return the loss by which it was compared there."""
        return None if self.ranked_at is None else self.ranks[self.ranked_at]

    @property
    def epochs_done(self) -> float:
        """Return how far it came, in epochs: a fraction where it ended within the first."""
        return max(self.epochs, self.ranked_at or 0)

    @property
    def title(self) -> str:
        """Return what a person calls it."""
        return title(self.number)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON; epochs become strings there, as JSON wants its keys."""
        plain = {name: {str(key): loss for key, loss in getattr(self, name).items()} for name in ("losses", "ranks")}
        return {**asdict(self), **plain, "rank_loss": self.rank_loss, "ranked_at": self.ranked_at}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> TrialRecord:
        """Make a record again of what `to_dict` returned."""
        given = {field.name: plain[field.name] for field in fields(cls)}
        losses = {int(epoch): loss for epoch, loss in plain["losses"].items()}
        return cls(**{**given, "losses": losses, "ranks": {float(at): loss for at, loss in plain["ranks"].items()}})


@dataclass(frozen=True)
class ProbeRecord:
    """A linear probe: a head fitted to the features of a frozen backbone before the first trial. `number` is below 0.

    `c` is the inverse of the penalty, chosen by the validation loss `value`; `tried` lists (c, loss). `seconds` and
    `cpu_seconds` are the whole of its cost, the pass over the images with it, of which `computed` went through the
    network. `milliseconds` is what the network takes for one image alone. With a `failure` there is no probe.
    """

    number: int
    backbone: str
    value: float | None = None
    accuracy: float | None = None
    c: float | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    computed: int = 0
    parameters: int | None = None
    milliseconds: float | None = None
    tried: tuple[tuple[float, float], ...] = ()
    failure: str | None = None

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> ProbeRecord:
        """Make a record of what `probe.json` or the study says; unknown fields are of another version."""
        renamed = {"value": values.get("val_loss"), "accuracy": values.get("val_accuracy"), **values}
        known = {name: renamed[name] for name in ProbeRecord.__dataclass_fields__ if name in renamed}
        return ProbeRecord(**{**known, "tried": tuple((c, loss) for c, loss in values.get("tried", ()))})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)

    def as_trial(self) -> TrialRecord:
        """Return the probe as a trial, to be ranked among others."""
        state = "FAIL" if self.failure is not None else "COMPLETE"
        params = {"backbone": self.backbone, "C": self.c}
        reason = "probe" if self.failure is None else f"failed: {self.failure}"
        return TrialRecord(self.number, state, params, self.value, 1, self.seconds, reason, {})


@dataclass(frozen=True)
class ModelComparison:
    """Whether the best model is better than the runner-up by more than the validation set's noise.

    `difference` is runner-up minus best, in mean validation loss per image; `standard_error` is that of the paired
    per-image differences. `inside_noise` holds where the difference is under two standard errors.
    """

    best: int
    runner_up: int
    difference: float
    standard_error: float
    images: int
    inside_noise: bool


@dataclass(frozen=True)
class StudyResult:
    """What a search gave.

    `model` is the finished model's directory, None while no trial has kept any weights. `stopped` says why the search
    ended: `trials` (all were run), `timeout`, `flat` or `interrupted`; `signal` is then the number of the signal.
    `test` holds the test split's figures (`loss`, `accuracy`), looked at once, at the end, where there is such a split.
    `estimate_error` is the estimate of the whole time made half way, divided by the time it took, minus one.
    """

    name: str
    directory: str
    storage: str
    model: str | None
    best: TrialRecord | None
    runner_up: TrialRecord | None
    comparison: ModelComparison | None
    test: dict[str, float] | None
    trials: tuple[TrialRecord, ...]
    stopped: str
    seconds: float
    estimate_error: float | None = None
    #: what a person should read of how the search ended
    notes: tuple[str, ...] = ()
    signal: int | None = None
    #: trials run at a time, and the seconds of their epochs, all of them together, in this search
    slots: int = 1
    busy_seconds: float = 0.0
    #: the page that tells all of this; None where none was asked for, or time or the disk did not allow it
    report: str | None = None
    #: what was made of the trials beside the best one's model, `refit`, `ensemble`, `average`: its `model` and figures
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: the linear probes that the search began with
    probes: tuple[ProbeRecord, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        records = {
            "best": self.best.to_dict() if self.best else None,
            "runner_up": self.runner_up.to_dict() if self.runner_up else None,
            "trials": [record.to_dict() for record in self.trials],
        }
        return {**asdict(self), **records}
