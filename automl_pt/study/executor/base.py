"""The interface of executors: this process (`inline`) and local worker processes (`processes`) implement it.

A trial is an iterator of results that can be stopped and started again: `make(spec, should_stop)` first yields the
recorded epochs of earlier calls and then trains the others; when `should_stop` turns true it saves and ends. An
executor advances the iterator step by step, reports each result, and after epoch `next_rung` waits for an answer: continue
to a later epoch, or pause, which drops the iterator. Only plain values are exchanged, so that a cluster can be another
executor.
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
    """One trial to run: its settings, its run directory, and the point, in epochs, at which it waits for an answer.

    `manifest` is the file with the study's frozen split. The pruning rule compares trials after the epochs in
    `ranked_at`, so their results carry a `rank_loss` if that differs from the validation loss. A fraction there stands
    for a proxy run before the first epoch, whose result is a `ProxyRun`. None of them lies before `next_rung`. A `number`
    below 0 is not a trial but a linear probe, which has one epoch.
    """

    number: int
    config: TrainConfig
    output: Path
    next_rung: float
    manifest: Path
    ranked_at: tuple[float, ...] = ()


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


#: what a trial's iterator yields
Step = EpochResult | ProxyRun | PassProgress
#: creates the iterator of one trial; worker processes receive it as "package.module:function"
MakeTrial = Callable[[TrialSpec, Callable[[], bool]], Iterator[Step]]


@dataclass(frozen=True)
class Report:
    """A message of an executor about trial `number`: exactly one of the other fields is set.

    `epoch` and `probe` are results, `passed` is the progress of a pass over the images. `held` is the point, in epochs,
    at which the trial waits for `resume` or `pause`.
    `ended`: the iterator is exhausted; `left`: it was asked to stop and has saved. `failure` says why the trial failed;
    `crash` that its process died, so that it may be resumed from its last checkpoint. `fatal` is an error that every
    other trial would raise too.
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
    """The connection of a function, called where trials run, to its caller.

    `tell` sends a sentence to the user. `alive` reports that the function is still working, as every sentence does,
    because silence beyond the limit ends it. `should_stop`, which reports this too, asks whether to save and return.
    """

    tell: Callable[[str], object] = lambda text: None
    alive: Callable[[], object] = lambda: None
    should_stop: Callable[[], bool] = lambda: False

    def progress(self, stage: str, done: int, total: int) -> None:
        """Report progress in reading images; see `prepare`."""
        self.alive()


#: for direct calls without a caller's connection
NO_CALLER = Caller()


@dataclass(frozen=True)
class Call:
    """A function to call where trials run: `package.module:function`, and its arguments as plain values.

    It receives `device`, `threads` and `caller` besides. `here` does the same in this process. Either returns plain
    values, or a generator that yields sentences for the user and returns the values. `what` describes the call in
    messages. Once the call is unwanted, the function has `grace` seconds to save and return.
    """

    function: str
    arguments: Mapping[str, Any]
    here: Callable[[Caller], Any]
    what: str
    grace: float = 0.0


#: yields a called function's sentences, and returns its result; None if it was ended because it is unwanted
Answer = Generator[str, None, Any]


class Engine(Protocol):
    """Runs up to `slots` trials at once."""

    slots: int

    def start(self, spec: TrialSpec) -> None:
        """Start or resume a trial, in a free slot."""

    def resume(self, number: int, next_rung: float) -> None:
        """Let a waiting trial continue to epoch `next_rung`."""

    def pause(self, number: int) -> None:
        """Drop a waiting trial: its checkpoint stays, its slot becomes free."""

    def call(self, call: Call, unwanted: Callable[[], bool] = lambda: False) -> Answer:
        """Call a function where trials run, in a free slot; yield its sentences, and return its result.

        Raises the function's own AutomlError, and PluginError for anything else that keeps it from returning.
        """

    def wait(self, timeout: float) -> list[Report]:
        """Return the messages received, after at most about `timeout` seconds if the executor can limit this."""

    def halt(self, grace: float) -> list[Report]:
        """Let every trial save and stop within `grace` seconds; return the last messages. Only calls may follow."""

    def close(self, grace: float = 0.0) -> list[Report]:
        """Let every trial save and stop within `grace` seconds, end the processes; return the last messages."""
