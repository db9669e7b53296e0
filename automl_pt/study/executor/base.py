"""Where trials run: one interface, met by this process (`inline`) and by local worker processes (`local`).

A trial is an iterator of results that can be left and begun again: `make(spec, should_stop)` yields the epochs
that earlier calls have done, from their record, and then does the others; when `should_stop` turns true it saves and
ends. An engine takes one step after another of it, says what came out, and holds after epoch `next_rung` for an answer: go
on to a later epoch, or pause, which leaves the iterator. Nothing else crosses the border, and all of it is plain
values, so that a remote actor can stand on the other side: a cluster is another engine.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from automl_pt.config import TrainConfig
from automl_pt.training.result import EpochResult


@dataclass(frozen=True)
class TrialSpec:
    """One trial to run: its settings, its run directory, and the point, in epochs, at which it holds for an answer.

    `manifest` is the file with the study's frozen split; after the epochs in `ranked_at` the pruning rule compares
    trials, so that their results carry a `rank_loss` where that is not the validation loss. A fraction there stands for
    a run in miniature, before the first epoch, of which the trial gives a `ProxyRun`. None of them lies before `next_rung`.
    A `number` below 0 is no trial but a linear probe, which has one epoch.
    """

    number: int
    config: TrainConfig
    output: Path
    next_rung: float
    manifest: Path
    ranked_at: tuple[float, ...] = ()


@dataclass(frozen=True)
class ProxyRun:
    """By what a trial is ranked before its first epoch, after one of its runs in miniature: NaN when that diverged.

    `epoch` is how long that run was, in epochs, `seconds` what it took.
    """

    epoch: float
    rank_loss: float
    seconds: float


@dataclass(frozen=True)
class PassProgress:
    """How many of the images of a pass have gone through a network: a linear probe tells it while features are made."""

    done: int
    total: int


#: what a trial's iterator yields
Step = EpochResult | ProxyRun | PassProgress
#: makes the iterator of one trial; for worker processes it is named, as "package.module:function"
MakeTrial = Callable[[TrialSpec, Callable[[], bool]], Iterator[Step]]


@dataclass(frozen=True)
class Report:
    """What an engine has to say about trial `number`: exactly one of the other fields is set.

    `epoch` and `probe` are results, `passed` says how far a pass over the images is. `held` is the point, in epochs, at
    which the trial waits for `resume` or `pause`.
    `ended`: the iterator came to its end; `left`: it was asked to stop and has saved. `failure` says why the trial
    failed; `crash` that its process died, so that it may be tried again from its last checkpoint. `fatal` is an error
    that every other trial would meet too.
    """

    number: int
    epoch: EpochResult | None = None
    probe: ProxyRun | None = None
    passed: PassProgress | None = None
    held: float | None = None
    ended: bool = False
    left: bool = False
    failure: str | None = None
    crash: str | None = None
    fatal: Exception | None = None


@dataclass(frozen=True)
class Caller:
    """What a function that is called where trials run has of its caller.

    `tell` passes a sentence on to the user. `alive` says that it is still at work, as every sentence does, because
    silence beyond the limit ends it. `should_stop`, which says the same, asks whether to save and return.
    """

    tell: Callable[[str], object] = lambda text: None
    alive: Callable[[], object] = lambda: None
    should_stop: Callable[[], bool] = lambda: False

    def progress(self, stage: str, done: int, total: int) -> None:
        """Say that images are being read; see `prepare`."""
        self.alive()


#: for whoever calls a function himself
NO_CALLER = Caller()


@dataclass(frozen=True)
class Call:
    """A function to call where trials run: `package.module:function`, and its arguments as plain values.

    There it is given `device`, `threads` and `caller` besides. `here` does the same in this process. Either returns
    plain values, or a generator that yields sentences for the user and returns them. `what` says in messages what was
    done. Once the call is unwanted, the function has `grace` seconds in which to save and return.
    """

    function: str
    arguments: Mapping[str, Any]
    here: Callable[[Caller], Any]
    what: str
    grace: float = 0.0


#: the sentences of a called function, and then what it returned; None where it was ended because it is unwanted
Answer = Generator[str, None, Any]


class Engine(Protocol):
    """Runs up to `slots` trials at once."""

    slots: int

    def start(self, spec: TrialSpec) -> None:
        """Begin or go on with a trial, in a free slot."""

    def resume(self, number: int, next_rung: float) -> None:
        """Let a held trial go on to epoch `next_rung`."""

    def pause(self, number: int) -> None:
        """Leave a held trial: its checkpoint stays, its slot becomes free."""

    def call(self, call: Call, unwanted: Callable[[], bool] = lambda: False) -> Answer:
        """Call a function where trials run, in a free slot; yield what it tells, and return what it returns.

        Raises the errors of ours that it raises, and PluginError for all else that keeps it from returning.
        """

    def wait(self, timeout: float) -> list[Report]:
        """Return what has come in, after at most about `timeout` seconds where the engine can say so."""

    def halt(self, grace: float) -> list[Report]:
        """Let every trial save and stop within `grace` seconds; return what still came in. Only calls may follow."""

    def close(self, grace: float = 0.0) -> list[Report]:
        """Let every trial save and stop within `grace` seconds, end the processes; return what still came in."""
