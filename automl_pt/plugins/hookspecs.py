"""The hooks that a plugin can implement.

A `register_` hook takes no arguments and returns values. A tracker's hook receives one event and returns
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from automl_pt.backbone import Backbone, Catalogue
from automl_pt.dataset import Dataset
from automl_pt.tracker_events import EpochFinished, RunFinished, RunStarted, StudyFinished, TrialFinished

#: the entry-point group, and the project name of pluggy's markers
GROUP = "automl_pt"
#: hooks that register something, and those of a tracker in the order of their calls
REGISTERING = ("register_backbones", "register_datasets")
TRACKING = ("run_started", "epoch_finished", "run_finished", "trial_finished", "study_finished")

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_backbones() -> Iterable[Backbone | Catalogue]:
    """Return the plugin's backbones; a zoo that is slow to import can return a Catalogue."""
    raise AssertionError("a specification is not called")


@hookspec
def register_datasets() -> Iterable[Dataset]:
    """Return the plugin's datasets."""
    raise AssertionError("a specification is not called")


@hookspec
def run_started(event: RunStarted) -> None:
    """Receive the start of a run, or its resumption: a single run, or a trial of a study."""
    raise AssertionError("a specification is not called")


@hookspec
def epoch_finished(event: EpochFinished) -> None:
    """Receive the results of an epoch; called at most once per epoch, even after a kill and resumption."""
    raise AssertionError("a specification is not called")


@hookspec
def run_finished(event: RunFinished) -> None:
    """Receive the end of a run's command, after which the tracker can close what it opened for it."""
    raise AssertionError("a specification is not called")


@hookspec
def trial_finished(event: TrialFinished) -> None:
    """Receive the outcome of a trial of a study."""
    raise AssertionError("a specification is not called")


@hookspec
def study_finished(event: StudyFinished) -> None:
    """Receive the results of a search; the last call of a search."""
    raise AssertionError("a specification is not called")
