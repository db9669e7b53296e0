"""The hooks a plugin may implement.

A `register_` hook returns values and is told nothing about who asks. A tracker's hook is told one value, and returns
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from automl_pt.augmentation import Augmentation
from automl_pt.backbone import Backbone, Catalogue
from automl_pt.dataset import Dataset
from automl_pt.metric import Metric
from automl_pt.optimizer import Optimizer
from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.plugins.pruners import Pruner
from automl_pt.plugins.samplers import Sampler
from automl_pt.tracker_events import EpochFinished, RunFinished, RunStarted, StudyFinished, TrialFinished

#: the entry-point group, and the name plugins mark their hooks for
GROUP = "automl_pt"
#: hooks that register something, and those of a tracker in the order in which they are told
REGISTERING = (
    "register_backbones",
    "register_datasets",
    "register_optimizers",
    "register_augmentations",
    "register_samplers",
    "register_pruners",
    "register_executors",
    "register_metrics",
)
TRACKING = ("run_started", "epoch_finished", "run_finished", "trial_finished", "study_finished")

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_backbones() -> Iterable[Backbone | Catalogue]:
    """Return the backbones this plugin offers; a zoo that is slow to import may return a Catalogue."""
    raise AssertionError("a specification is not called")


@hookspec
def register_datasets() -> Iterable[Dataset]:
    """Return the datasets this plugin offers."""
    raise AssertionError("a specification is not called")


@hookspec
def register_optimizers() -> Iterable[Optimizer]:
    """Return the optimisers this plugin offers."""
    raise AssertionError("a specification is not called")


@hookspec
def register_executors() -> Iterable[ExecutorFactory]:
    """Return the executors this plugin offers: where the trials of a search run, chosen by `--engine NAME`."""
    raise AssertionError("a specification is not called")


@hookspec
def register_augmentations() -> Iterable[Augmentation]:
    """Return the augmentations of training images this plugin offers."""
    raise AssertionError("a specification is not called")


@hookspec
def register_samplers() -> Iterable[Sampler]:
    """Return the samplers this plugin offers: what chooses the point of the next trial, by `--sampler NAME`."""
    raise AssertionError("a specification is not called")


@hookspec
def register_metrics() -> Iterable[Metric]:
    """Return the metrics of validation this plugin offers; each is computed after every epoch."""
    raise AssertionError("a specification is not called")


@hookspec
def register_pruners() -> Iterable[Pruner]:
    """Return the pruners this plugin offers: what says which trials go on, by `--pruner NAME`."""
    raise AssertionError("a specification is not called")


@hookspec
def run_started(event: RunStarted) -> None:
    """Be told that a run begins or goes on: a single run, or a trial of a study."""
    raise AssertionError("a specification is not called")


@hookspec
def epoch_finished(event: EpochFinished) -> None:
    """Be told what an epoch gave; of an epoch never twice, whatever was killed in between."""
    raise AssertionError("a specification is not called")


@hookspec
def run_finished(event: RunFinished) -> None:
    """Be told that the command is done with a run: what was opened for it can be closed."""
    raise AssertionError("a specification is not called")


@hookspec
def trial_finished(event: TrialFinished) -> None:
    """Be told how a trial of a study ended."""
    raise AssertionError("a specification is not called")


@hookspec
def study_finished(event: StudyFinished) -> None:
    """Be told what a search found; the last call of a search."""
    raise AssertionError("a specification is not called")
