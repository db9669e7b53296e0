"""What a study searches over. Image classifiers are one subject; the tests search over a toy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_pt.config import SearchConfig
from automl_pt.study.executor.base import Caller, Engine, MakeTrial
from automl_pt.study.extras.extras import MakeExtra
from automl_pt.study.records import ModelComparison, TrialRecord
from automl_pt.study.space.batch_sizes import StepMemory

if TYPE_CHECKING:
    from automl_pt.plugins.manager import Plugins
    from automl_pt.runs.start import Start
    from automl_pt.study.space.dimensions import Dimension


@dataclass(frozen=True)
class Proof:
    """What trying the networks before any trial gave: what a training step of each takes of a worker's memory.

    `steps` is empty where that is no matter; `notes` say which networks cannot be trained, and why.
    """

    steps: tuple[StepMemory, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchData:
    """What the trials of a study share: how many images each split has, and a fingerprint of train and val.

    `make` makes a trial's iterator in this process. `plugins` are those of third parties that are used, `dimensions`
    what the backbones add to the search. `prove(engine, unwanted)` tries the networks where trials run, until that is
    unwanted; None: there are none. `notes` say how the data were understood, and what could not be done with them.
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
    #: how many classes there are, and the sides in pixels that the backbones are trained at; for the first lines
    classes: int = 0
    image_sizes: tuple[int, ...] = ()

    def counts(self) -> dict[str, int]:
        """Return how many images each split has."""
        return {"train": self.train_images, "val": self.val_images, "test": self.test_images}


@dataclass(frozen=True)
class Objective:
    """The functions by which a search prepares, runs, publishes and judges.

    A worker process finds the subject itself by `name`, "package.module:NAME". `prepare(config, manifest, plugins)`
    freezes or reloads the data. `make` names the function that makes a trial's iterator in a worker process.
    `publish(source, target)` makes a run directory's model the finished one.
    `compare(config, best, runner_up, study's folder, plugins, contact)` measures whether the best is better than the
    noise; `test(config, model, manifest, plugins, contact)` measures the finished model on the test split; both tell
    `caller` what a person should know of how it went.
    `report(config, directory, plugins, contact)` writes the page of the ended study and returns its path; None: there
    is none. `starts(config, plugins)` yields what each backbone starts from, and then brings their weights here; None:
    no matter. `makers()` returns what makes a refit, an ensemble or an average of ended trials; None: nothing is made.
    These four run where trials run: see `concluding`.
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
    #: whether its `make` knows linear probes
    probes: bool = False
