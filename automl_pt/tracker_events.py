"""What a tracker is told: one frozen value for each of its hooks, of plain Python values alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrackedRun:
    """The run that an event is about: a single one, or a trial of a study."""

    #: a single run's folder, or `STUDY/trial-NUMBER`
    name: str
    #: absolute path of the run directory
    directory: str
    #: None for a single run, as are the other two
    study: str | None = None
    #: absolute path of the study's folder
    study_directory: str | None = None
    trial: int | None = None


@dataclass(frozen=True)
class RunStarted:
    """A run begins or goes on. Every command that works on a run tells this once of it, before its first epoch."""

    run: TrackedRun
    #: all settings of the run by name: numbers, texts, booleans, None, lists of those
    settings: Mapping[str, Any]
    #: epochs that were done before; they are not told again
    epochs_done: int = 0


@dataclass(frozen=True)
class EpochFinished:
    """An epoch is done, and what it gave is on disk."""

    run: TrackedRun
    #: counted from 1
    epoch: int
    #: `train_loss`, `val_loss`, `val_accuracy`, `lr`, `seconds` and so on by name, every metric as `val_NAME`; what
    #: there is none of is left out
    figures: Mapping[str, float]
    #: whether the objective, by default the validation loss, is the best so far
    is_best: bool = False


@dataclass(frozen=True)
class RunFinished:
    """The command is done with a run; `reason` says whether the run has ended or waits to be gone on with."""

    run: TrackedRun
    #: `completed`, `patience`, `diverged`, `pruned`, `failed: ...`; or `interrupted`, `paused`: it may go on
    reason: str
    #: epochs done in all
    epochs: int
    #: figures of the best epoch that was told, by the objective; empty where none was
    best: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialFinished:
    """A trial of a study has ended for good; the same trial's RunFinished was told just before."""

    run: TrackedRun
    #: the searched settings
    params: Mapping[str, Any]
    #: COMPLETE, PRUNED or FAIL
    state: str
    reason: str
    #: validation loss of the weights it kept; None where it kept none
    value: float | None
    epochs: int
    seconds: float


@dataclass(frozen=True)
class StudyFinished:
    """The search command is at its end. A study that is searched further later tells this again."""

    study: str
    #: absolute path of the study's folder
    directory: str
    #: number of the best trial, its searched settings and its validation loss; None and empty where there is none
    best_trial: int | None
    params: Mapping[str, Any]
    value: float | None
    #: absolute path of the finished model
    model: str | None
    trials: int
    #: `trials`, `timeout`, `flat` or `interrupted`
    stopped: str
    seconds: float
    #: figures of the test split, where there is one
    test: Mapping[str, float] = field(default_factory=dict)
