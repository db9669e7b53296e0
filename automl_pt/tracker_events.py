"""The events that a tracker receives: one frozen value per hook, of plain Python values."""

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
    """A run starts or resumes. Every command that works on a run reports this once, before its first epoch."""

    run: TrackedRun
    #: all settings of the run by name: numbers, texts, booleans, None, lists of those
    settings: Mapping[str, Any]
    #: epochs of earlier commands, which are not reported again
    epochs_done: int = 0


@dataclass(frozen=True)
class EpochFinished:
    """An epoch is finished, and its results are on disk."""

    run: TrackedRun
    #: counted from 1
    epoch: int
    #: `train_loss`, `val_loss`, `val_accuracy`, `lr`, `seconds` and so on by name, every metric as `val_NAME`; what
    #: is missing has no entry
    figures: Mapping[str, float]
    #: whether the objective, by default the validation loss, is the best so far
    is_best: bool = False


@dataclass(frozen=True)
class RunFinished:
    """The command has finished with a run; `reason` states whether the run has ended or can be resumed."""

    run: TrackedRun
    #: `completed`, `patience`, `diverged`, `pruned`, `failed: ...`; or `interrupted`, `paused`: it can be resumed
    reason: str
    #: finished epochs in all
    epochs: int
    #: figures of the best epoch that was told, by the objective; empty where none was
    best: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialFinished:
    """A trial of a study has ended finally; its RunFinished was reported just before."""

    run: TrackedRun
    #: the searched settings
    params: Mapping[str, Any]
    #: COMPLETE, PRUNED or FAIL
    state: str
    reason: str
    #: validation loss of the weights it kept; None if it kept none
    value: float | None
    epochs: int
    seconds: float


@dataclass(frozen=True)
class StudyFinished:
    """The search command has ended. A study that is resumed later reports this again."""

    study: str
    #: absolute path of the study's folder
    directory: str
    #: number of the best trial, its searched settings and its validation loss; None and empty if there is none
    best_trial: int | None
    params: Mapping[str, Any]
    value: float | None
    #: absolute path of the finished model
    model: str | None
    trials: int
    #: `trials`, `timeout`, `flat` or `interrupted`
    stopped: str
    seconds: float
    #: figures of the test split, if there is one
    test: Mapping[str, float] = field(default_factory=dict)
