"""The hooks that a plugin can implement.

A `register_` hook takes no arguments and returns values. A tracker's hook receives one event and returns
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from automl_pt.backbone import Backbone, Catalogue
from automl_pt.dataset import Dataset
from automl_pt.plugins.augmentations import Augmentation
from automl_pt.plugins.executors import ExecutorFactory
from automl_pt.plugins.metrics import Metric
from automl_pt.plugins.optimizers import Optimizer
from automl_pt.plugins.pruners import Pruner
from automl_pt.plugins.readers import ImageReader
from automl_pt.plugins.samplers import Sampler
from automl_pt.tracker_events import EpochFinished, RunFinished, RunStarted, StudyFinished, TrialFinished

#: the entry-point group, and the project name of pluggy's markers
GROUP = "automl_pt"
#: hooks that register something, and those of a tracker in the order of their calls
REGISTERING = (
    "register_backbones",
    "register_datasets",
    "register_optimizers",
    "register_augmentations",
    "register_samplers",
    "register_pruners",
    "register_executors",
    "register_metrics",
    "register_readers",
)
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
def register_readers() -> Iterable[ImageReader]:
    """Return the image formats this plugin reads, beside JPEG, PNG, WebP, BMP, GIF and TIFF."""
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
