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
from automl_pt.optimizer import Optimizer
from automl_pt.tracker_events import EpochFinished, RunFinished, RunStarted, StudyFinished, TrialFinished

#: the entry-point group, and the name plugins mark their hooks for
GROUP = "automl_pt"
#: hooks that register something, and those of a tracker in the order in which they are told
REGISTERING = ("register_backbones", "register_datasets", "register_optimizers", "register_augmentations")
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
def register_augmentations() -> Iterable[Augmentation]:
    """Return the augmentations of training images this plugin offers."""
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
