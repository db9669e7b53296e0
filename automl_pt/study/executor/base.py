"""Where trials run: one interface, met by this process (`inline`), by worker processes (`processes`) and by plugins.

A trial is an iterator of results that can be left and begun again: `make(spec, should_stop)` yields the epochs
that earlier calls have done, from their record, and then does the others; when `should_stop` turns true it saves and
ends. An engine takes one step after another and returns what each says, as a `Message`. After epoch `next_rung` the
trial waits for an answer: resume until a later epoch, or pause, which closes the iterator. Nothing else crosses the
border, and all of it can be plain values, so that a remote actor can stand on the other side: a cluster is another
engine.

What a remote place adds: a place that is lost is not a crash of the trial; what an epoch left in the trial's folder is
on the coordinator's disk before the epoch is reported; each place says what memory and which device it has; a trial
that waits for a place is reported to the user; places come and go; what a lost place still sends is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from automl_pt.config import SearchConfig, TrainConfig
from automl_pt.study.executor.messages import Message, PassProgress, Place, ProxyRun
from automl_pt.training.result import EpochResult


@dataclass(frozen=True)
class TrialSpec:
    """One trial to run: its settings, its run directory, and the point, in epochs, at which it waits for an answer.

    `manifest` is the file with the study's frozen split; after the epochs in `ranked_at` the pruning rule compares
    trials, so that their results carry a `rank_loss` where that is not the validation loss. A fraction there is the
    length of a proxy run before the first epoch, which the trial yields as a `ProxyRun`. None lies before `next_rung`.
    A `number` below 0 is no trial but a linear probe, which has one epoch. With `by_content` the image files are on
    another machine, and the decoded images are in this one's cache. A trial that trains a head on features and
    ends with a cost above `worth_saving` leaves no weights, because the study would remove them. `proxy_seed` is the
    seed of all proxy runs of the study, None for the trial's own.
    """

    number: int
    config: TrainConfig
    output: Path
    next_rung: float
    manifest: Path
    ranked_at: tuple[float, ...] = ()
    by_content: bool = False
    worth_saving: float = math.inf
    proxy_seed: int | None = None

    def as_plain(self) -> dict[str, Any]:
        """Return all fields as plain values, for another process."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        own = {"config": self.config.model_dump(mode="json"), "ranked_at": list(self.ranked_at)}
        return plain | own | {"output": str(self.output), "manifest": str(self.manifest)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> TrialSpec:
        """Return the trial that `as_plain` described."""
        paths = {name: Path(plain[name]) for name in ("output", "manifest")}
        own = {"config": TrainConfig(**plain["config"]), "ranked_at": tuple(plain["ranked_at"])}
        return cls(**{**plain, **paths, **own})


#: what a trial's iterator yields
Step = EpochResult | ProxyRun | PassProgress
#: creates the iterator of one trial; worker processes receive it as "package.module:function"
MakeTrial = Callable[[TrialSpec, Callable[[], bool]], Iterator[Step]]


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

    There it is given `device`, `threads` and `caller` besides. `here` does the same in this process. Either returns
    plain values, or a generator that yields sentences for the user and returns them. `what` says in messages what was
    done. Once the call is unwanted, the function has `grace` seconds in which to save and return. `folder` is the one
    whose files it reads and writes, by paths among the arguments: on another machine it has a copy of them.
    """

    function: str
    arguments: Mapping[str, Any]
    here: Callable[[Caller], Any]
    what: str
    grace: float = 0.0
    folder: Path | None = None


#: yields a called function's sentences, and returns its result; None if it was ended because it is unwanted
Answer = Generator[str, None, Any]


class Engine(Protocol):
    """Runs up to `slots` trials at once; the methods with a body suit an executor that has no more to say.

    Inherit from it to have those.
    """

    #: whether trials run in this process, which is then busy for an epoch at a time
    in_process: bool = False

    @property
    def slots(self) -> int:
        """How many trials can run at once, at least 1. It may change while a search runs, as places come and go."""

    def places(self) -> Sequence[Place]:
        """Return where trials run now, one for each slot; empty where that is unknown."""
        return ()

    def notices(self) -> Sequence[str]:
        """Return, once each, sentences for the user: such as that a trial waits for a place, and what is missing."""
        return ()

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

    def wait(self, timeout: float) -> list[Message]:
        """Return the messages received, after at most about `timeout` seconds if the executor can limit this."""

    def halt(self, grace: float) -> list[Message]:
        """Let every trial save and stop within `grace` seconds; return the last messages. Only calls may follow."""

    def close(self, grace: float = 0.0) -> list[Message]:
        """Let every trial save and stop within `grace` seconds, end the processes; return what still came in."""


@dataclass(frozen=True)
class ExecutorJob:
    """The search for which an executor is made; its function `make` is given this and returns the executor.

    `trial` names the function that makes a trial's iterator, "package.module:function", for other processes to import;
    `trial_here` does the same in this process. `directory` is the study's folder: trials write to folders below it, and
    logs go to `directory / "logs"`. `should_stop` says whether a trial in this process must save and end.
    """

    config: SearchConfig
    trial: str
    trial_here: MakeTrial
    directory: Path
    should_stop: Callable[[], bool] = lambda: False
