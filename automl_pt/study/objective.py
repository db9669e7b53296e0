"""The objective of a study. Image classifiers are one; the tests use a toy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_pt.config import SearchConfig
from automl_pt.runs.published import DEFAULT_LR
from automl_pt.study.executor.base import Caller, Engine, MakeTrial
from automl_pt.study.extras.extras import MakeExtra
from automl_pt.study.records import ModelComparison, TrialRecord
from automl_pt.study.space.batch_sizes import StepMemory
from automl_pt.study.space.space import OptimizerSpace

if TYPE_CHECKING:
    from automl_pt.plugins.manager import Plugins
    from automl_pt.runs.start import Start
    from automl_pt.study.space.dimensions import Dimension


@dataclass(frozen=True)
class Proof:
    """The result of trying the networks before any trial: the memory of a training step of each.

    `steps` is empty if memory does not matter; `notes` name the networks that cannot be trained, with reasons.
    """

    steps: tuple[StepMemory, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchData:
    """What all trials of a study share: the number of images per split, and a fingerprint of train and val.

    `make` creates a trial's iterator in this process. `plugins` are the third-party plugins in use, `dimensions` the
    backbones' additions to the search space. `prove(engine, unwanted)` tries the networks where trials run, until that
    is unwanted; None if there are none. `notes` describe how the data were interpreted, and any problems.
    """

    train_images: int
    val_images: int
    test_images: int
    fingerprint: str
    make: MakeTrial
    plugins: Sequence[Mapping[str, Any]] = ()
    dimensions: tuple[Dimension, ...] = ()
    prove: Callable[[Engine, Callable[[], bool]], Proof] | None = None
    notes: tuple[str, ...] = ()
    #: number of classes, and the image sides in pixels of the backbones, for the first lines of output
    classes: int = 0
    image_sizes: tuple[int, ...] = ()
    #: the learning rate of trial 0: the optimiser's published one
    default_lr: float = DEFAULT_LR
    #: what the trials of each optimiser have, where optimisers are searched
    optimizers: Mapping[str, OptimizerSpace] = field(default_factory=dict)
    #: returns the best trial's settings of the study that this one starts from; None if it starts from none
    early: Callable[[], Mapping[str, Any] | None] = lambda: None

    def counts(self) -> dict[str, int]:
        """Return the number of images per split."""
        return {"train": self.train_images, "val": self.val_images, "test": self.test_images}


@dataclass(frozen=True)
class Objective:
    """The functions by which a search prepares, runs, publishes and evaluates.

    A worker process imports the objective by `name`, "package.module:NAME". `prepare(config, manifest, plugins)`
    freezes or reloads the data. `make` names the function that creates a trial's iterator in a worker process.
    `publish(source, target)` makes a run directory's model the finished one.
    `compare(config, best, runner_up, study's folder, plugins, contact)` measures whether the best trial's lead exceeds
    the noise; `test(config, model, manifest, plugins, contact)` evaluates the finished model on the test split; both
    send notes to `caller`.
    `report(config, directory, plugins, contact)` writes the page of the ended study and returns its path; None if there
    is none. `starts(config, plugins)` yields what each backbone starts from, and then fetches the weights; None if that
    does not apply. `makers()` returns the functions that make the extras; None if there are none.
    The last four run where trials run: see `concluding`.
    """

    name: str
    prepare: Callable[[SearchConfig, Path, Plugins | None], SearchData]
    make: str
    publish: Callable[[Path, Path], None]
    compare: Callable[[SearchConfig, TrialRecord, TrialRecord, Path, Plugins | None, Caller], ModelComparison | None]
    test: Callable[[SearchConfig, Path, Path, Plugins | None, Caller], dict[str, float] | None]
    report: Callable[[SearchConfig, Path, Plugins | None, Caller], Path] | None = None
    makers: Callable[[], Mapping[str, MakeExtra]] | None = None
    starts: Callable[[SearchConfig, Plugins | None], Iterator[Start]] | None = None
    #: whether its `make` supports linear probes
    probes: bool = False
