"""What a running search tells: one frozen value an event, the same for the live display, `--json` lines and tests."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from automl_pt.study.records import ProbeRecord, StudyResult
from automl_pt.training.result import EpochResult


@dataclass(frozen=True)
class Event:
    """Base of all events."""

    def to_dict(self) -> dict[str, Any]:
        """Return the event's name and fields as plain values for JSON."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        plain = {
            name: value.to_dict() if isinstance(value, EpochResult | StudyResult | ProbeRecord) else value
            for name, value in values.items()
        }
        return {"event": type(self).__name__, **plain}


@dataclass(frozen=True)
class NetworkChosen(Event):
    """What a backbone starts from, said before anything is made or fetched.

    `download_bytes` is the size of the file of weights that is fetched next: 0 where it is on this machine, None where
    it is not known.
    """

    backbone: str
    pretrained: bool
    license: str | None
    download_bytes: int | None
    text: str
    #: None where its plugin does not say
    parameters: int | None = None


@dataclass(frozen=True)
class StudyStarted(Event):
    """The study is open. `finished` of its `trials` had ended before; `workers` trials run at once, 0: in this process.

    `storage` never shows a password. `images` counts each split's, `searched` says in words what is searched.
    """

    name: str
    directory: str
    storage: str
    trials: int
    finished: int
    workers: int
    epochs: int
    images: dict[str, int] = field(default_factory=dict)
    classes: int = 0
    image_sizes: tuple[int, ...] = ()
    device: str = ""
    searched: str = ""
    #: number format of the forward pass
    precision: str = ""
    #: seconds after which the search ends; None: without a limit
    timeout: float | None = None
    #: what chooses the best trial: the validation loss, or the name of a metric
    objective: str = "val_loss"


@dataclass(frozen=True)
class TrialStarted(Event):
    """A trial begins, or goes on after `epochs_done` epochs; it will be looked at again after epoch `until`."""

    number: int
    params: dict[str, Any]
    epochs_done: float
    until: float


@dataclass(frozen=True)
class EpochDone(Event):
    """A trial has done an epoch."""

    trial: int
    result: EpochResult


@dataclass(frozen=True)
class TrialRanked(Event):
    """A trial was run in miniature, within a part of an epoch; trials are compared by the `rank_loss` after it."""

    trial: int
    epoch: float
    rank_loss: float


@dataclass(frozen=True)
class TrialPaused(Event):
    """A trial waits after `epoch`: whether it goes on depends on trials that have not come that far."""

    number: int
    epoch: float
    value: float | None


@dataclass(frozen=True)
class TrialEnded(Event):
    """A trial is over. `state` is COMPLETE, PRUNED or FAIL, `value` the validation loss of the weights it kept."""

    number: int
    state: str
    reason: str
    value: float | None
    epochs: int
    seconds: float


@dataclass(frozen=True)
class ProbeStarted(Event):
    """The frozen features of a backbone are made, to fit a linear head to them; `number` is below 0."""

    number: int
    backbone: str


@dataclass(frozen=True)
class PassDone(Event):
    """Of a split's images `done` of `total` have gone through the frozen network."""

    number: int
    backbone: str
    done: int
    total: int


@dataclass(frozen=True)
class ProbeEnded(Event):
    """A linear probe is fitted, and its model is finished."""

    probe: ProbeRecord


@dataclass(frozen=True)
class NewBest(Event):
    """Of all weights kept so far a trial's are the best, and `model` is now a finished model made of them.

    `value` is their validation loss; `chosen_by` the objective's value as text, where that is not the loss.
    """

    number: int
    value: float
    model: str
    chosen_by: str = ""


@dataclass(frozen=True)
class Progress(Event):
    """How far the search is: `done` is the share of the expected epochs, `seconds_left` an estimate or None."""

    done: float
    seconds: float
    seconds_left: float | None


@dataclass(frozen=True)
class Notice(Event):
    """One sentence a person should read, for instance that a worker was restarted."""

    text: str


@dataclass(frozen=True)
class Finished(Event):
    """The search is over; always the last event."""

    result: StudyResult
