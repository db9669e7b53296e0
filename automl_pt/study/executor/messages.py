"""The messages of an executor about its trials: a union of frozen values, and their form in plain values.

An executor yields them in this process; a worker process and a remote place send them as plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args, get_type_hints

from automl_pt.core import errors
from automl_pt.core.errors import AutomlError
from automl_pt.training.result import EpochResult


@dataclass(frozen=True)
class ProxyRun:
    """The ranking loss of a trial before its first epoch, after one of its proxy runs: NaN if that diverged.

    `epoch` is the length of that run in epochs, `seconds` its duration.
    """

    epoch: float
    rank_loss: float
    seconds: float


@dataclass(frozen=True)
class PassProgress:
    """How many images of a pass have gone through a network; a linear probe reports this while it computes features."""

    done: int
    total: int


@dataclass(frozen=True)
class Place:
    """Where a trial runs: the device as torch names it, its kind in words, and the bytes of memory for one trial there.

    `name` tells places of the same kind apart, such as by their machine. `memory` is 0 where it is unknown.
    """

    device: str
    kind: str = ""
    memory: int = 0
    name: str = ""

    def text(self) -> str:
        """Return it as a person reads it."""
        return " on ".join(part for part in (self.kind or self.device, self.name) if part)


@dataclass(frozen=True)
class TrialPlaced:
    """Trial `number` has started at `place`."""

    number: int
    place: Place


@dataclass(frozen=True)
class PassAdvanced:
    """More images of a pass have gone through the network."""

    number: int
    progress: PassProgress


@dataclass(frozen=True)
class ProxyRunEnded:
    """A proxy run before the trial's first epoch has ended."""

    number: int
    result: ProxyRun


@dataclass(frozen=True)
class EpochEnded:
    """The trial has finished an epoch, or has yielded a recorded one again."""

    number: int
    result: EpochResult


@dataclass(frozen=True)
class TrialWaits:
    """The trial has reached its next rung, at `epoch`, and waits for `resume` or `pause`."""

    number: int
    epoch: float


@dataclass(frozen=True)
class IteratorEnded:
    """The trial's iterator has ended without an error; its last epoch says why it ended."""

    number: int


@dataclass(frozen=True)
class TrialStopped:
    """The trial was asked to stop, and has saved."""

    number: int


@dataclass(frozen=True)
class TrialFailed:
    """The trial has failed, for a reason of its own."""

    number: int
    reason: str


@dataclass(frozen=True)
class TrialCrashed:
    """The trial's process died, or lost its GPU: the trial may be started again from its last checkpoint."""

    number: int
    reason: str


@dataclass(frozen=True)
class TrialLostPlace:
    """The trial's place was lost, such as with its machine: the trial goes on elsewhere, and no failure is counted."""

    number: int
    reason: str


@dataclass(frozen=True)
class StudyFailed:
    """The trial raised an error that every other trial would raise too."""

    number: int
    error: AutomlError


#: what an executor says of trial `number`
Message = (
    TrialPlaced
    | PassAdvanced
    | ProxyRunEnded
    | EpochEnded
    | TrialWaits
    | IteratorEnded
    | TrialStopped
    | TrialFailed
    | TrialCrashed
    | TrialLostPlace
    | StudyFailed
)


def messages_of(number: int, step: EpochResult | ProxyRun | PassProgress, next_rung: float) -> list[Message]:
    """Return what a step of a trial says, and that the trial waits where the step reaches `next_rung`."""
    match step:
        case PassProgress():
            return [PassAdvanced(number, step)]
        case ProxyRun():
            told: Message = ProxyRunEnded(number, step)
            waits = step.epoch >= next_rung
        case EpochResult():
            told = EpochEnded(number, step)
            waits = step.reason is None and step.epoch >= next_rung
    return [told, TrialWaits(number, step.epoch)] if waits else [told]


_KINDS: Mapping[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def message_as_plain(message: Message) -> dict[str, Any]:
    """Convert a message to plain values: its class's name and its fields."""
    return {"message": type(message).__name__, **{name: _as_plain(value) for name, value in vars(message).items()}}


def message_from_plain(plain: Mapping[str, Any]) -> Message:
    """Rebuild a message; only the classes of `Message` are accepted."""
    kind = _KINDS[plain["message"]]
    return kind(**{name: _READ.get(of, _same)(plain[name]) for name, of in get_type_hints(kind).items()})


def error_as_plain(error: AutomlError) -> dict[str, Any]:
    """Convert an AutomlError to plain values."""
    plain = {"type": type(error).__name__, "rule": error.rule, "given": error.given, "remedy": error.remedy}
    return {**plain, "mistakes": list(error.mistakes)} if isinstance(error, errors.ConfigError) else plain


def error_from_plain(parts: Mapping[str, Any]) -> AutomlError:
    """Rebuild an error by its name in `errors`."""
    kind = getattr(errors, parts["type"], AutomlError)
    error: AutomlError = kind.__new__(kind)
    AutomlError.__init__(error, parts["rule"], given=parts["given"], remedy=parts["remedy"])
    if isinstance(error, errors.ConfigError):
        error.mistakes = tuple(parts.get("mistakes", ()))
    return error


def _as_plain(value: Any) -> Any:
    match value:
        case EpochResult():
            return value.to_dict()
        case AutomlError():
            return error_as_plain(value)
        case ProxyRun() | PassProgress() | Place():
            return asdict(value)
        case _:
            return value


def _same(value: Any) -> Any:
    return value


#: how a field is rebuilt, by its type; others are plain already
_READ: Mapping[Any, Callable[[Any], Any]] = {
    EpochResult: EpochResult.from_dict,
    AutomlError: error_from_plain,
    ProxyRun: lambda plain: ProxyRun(**plain),
    PassProgress: lambda plain: PassProgress(**plain),
    Place: lambda plain: Place(**plain),
}
