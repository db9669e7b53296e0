"""The events of a running search: frozen values, the same for the live display, `--json` lines and tests."""

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
    """What a backbone starts from, reported before anything is created or fetched.

    `download_bytes` is the size of the file of weights that is fetched next: 0 if it is on this machine, None if
    unknown.
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

    `storage` never contains a password. `images` counts each split's images; `searched` describes the search space.
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
    """A trial starts, or resumes after `epochs_done` epochs; it is compared next after epoch `until`."""

    number: int
    params: dict[str, Any]
    epochs_done: float
    until: float
    #: the optimiser of a rival
    rival: str | None = None


@dataclass(frozen=True)
class EpochDone(Event):
    """A trial has finished an epoch."""

    trial: int
    result: EpochResult


@dataclass(frozen=True)
class TrialRanked(Event):
    """A proxy run of a trial has ended, within the first epoch; trials are compared by its `rank_loss`."""

    trial: int
    epoch: float
    rank_loss: float


@dataclass(frozen=True)
class TrialPaused(Event):
    """A trial pauses after `epoch`, because its verdict depends on trials that are not that far."""

    number: int
    epoch: float
    value: float | None


@dataclass(frozen=True)
class TrialEnded(Event):
    """A trial has ended. `state` is COMPLETE, PRUNED or FAIL, `value` the validation loss of the weights it kept."""

    number: int
    state: str
    reason: str
    value: float | None
    epochs: int
    seconds: float


@dataclass(frozen=True)
class ProbeStarted(Event):
    """The frozen features of a backbone are being computed, to fit a linear head; `number` is below 0."""

    number: int
    backbone: str


@dataclass(frozen=True)
class PassDone(Event):
    """`done` of `total` images of a split have passed through the frozen network."""

    number: int
    backbone: str
    done: int
    total: int


@dataclass(frozen=True)
class ProbeEnded(Event):
    """A linear probe is fitted, and its model is complete."""

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
    """The progress of the search: `done` is the share of the expected epochs, `seconds_left` an estimate or None."""

    done: float
    seconds: float
    seconds_left: float | None


@dataclass(frozen=True)
class Notice(Event):
    """One sentence for the user, for instance that a worker was restarted."""

    text: str


@dataclass(frozen=True)
class Finishing(Event):
    """The trials have ended, and the search does what `text` says, such as "comparing trials 3 and 5"."""

    text: str


@dataclass(frozen=True)
class Finished(Event):
    """The search has ended; always the last event."""

    result: StudyResult
