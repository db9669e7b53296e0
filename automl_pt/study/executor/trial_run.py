"""What a trial of a real study is: the epochs of a run, those already done first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from automl_pt.config import TrainConfig
from automl_pt.core.errors import NoLocksError, OutputError
from automl_pt.core.locks import locked
from automl_pt.data.prepare import Data, prepare
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.runs import run
from automl_pt.runs.directory import history
from automl_pt.runs.start import settled
from automl_pt.study.executor.base import Step, TrialSpec
from automl_pt.study.executor.linear_probe import linear_probe
from automl_pt.study.proxy_run import proxy_runs
from automl_pt.study.ranking import last_state, rank_loss
from automl_pt.training.result import EpochResult

#: seconds in which a process that has paused a trial, or that lost its coordinator, leaves the trial's folder
LEAVING = 10.0
#: settings that differ between the trials of a study, and say nothing of its data
PER_TRIAL = ("lr", "batch_size", "backbone", "backbone_options", "seed")


def make_trial(spec: TrialSpec, should_stop: Callable[[], bool]) -> Iterator[Step]:
    """Return the trial's epochs; data and plugins are prepared once in this process, from the study's own manifest."""
    plugins = loaded_plugins(spec.config.plugins)
    return epochs(spec, should_stop, _data(_shared(spec.config), spec.manifest), plugins)


def epochs(spec: TrialSpec, should_stop: Callable[[], bool], data: Data, plugins: Plugins) -> Iterator[Step]:
    """Yield what the run's history tells of, then what is still to do."""
    backbone = plugins.backbone(spec.config.backbone, spec.config.backbone_options)
    spec = replace(spec, config=settled(spec.config, backbone, data.hints))
    if spec.number < 0:
        yield from linear_probe(spec, should_stop, data, plugins)
        return
    if spec.output.exists():  # a run in miniature leaves none
        await_leaving(spec.output, should_stop)
    seen = 0
    past = history(spec.output)
    for result in past:
        # only of the last epoch the weights are still there; what earlier ones were ranked by is in the ledger
        yield _ranked(result, spec, data, plugins) if result is past[-1] else result
        seen = result.epoch
        if result.reason is not None:
            return

    if not past:
        yield from proxy_runs(spec, should_stop, data, plugins)
        if should_stop():
            return

    def after_step(batches_done: int, batches: int) -> bool:
        return should_stop()

    for result in run.execute(spec.config, spec.output, data=data, plugins=plugins, after_step=after_step):
        yield from _missed(spec.output, seen, result.epoch)
        yield _ranked(result, spec, data, plugins)
        seen = result.epoch
    yield from _missed(spec.output, seen, spec.config.epochs + 1)


def await_leaving(output: Path, should_stop: Callable[[], bool], limit: float = LEAVING) -> None:
    """Wait until nobody works in a trial's folder: it may be promoted while the process that paused it still leaves.

    After `limit` seconds the run is begun all the same, and says what is wrong.
    """
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline and not should_stop():
        try:
            with locked(output / ".lock", wait=False):
                return
        except NoLocksError:
            return  # the run says so
        except OutputError:
            time.sleep(0.02)


def _ranked(result: EpochResult, spec: TrialSpec, data: Data, plugins: Plugins) -> EpochResult:
    """Add what the pruning rule compares, after the epochs at which it does."""
    if result.epoch not in spec.ranked_at or result.reason is not None:
        return result
    state = last_state(spec.output)
    return result if state is None else replace(result, rank_loss=rank_loss(spec.config, state["model"], data, plugins))


def _missed(output: Path, seen: int, before: int) -> list[EpochResult]:
    """Return epochs that were in the checkpoint but not yet in the history when the run was killed."""
    return [result for result in history(output) if seen < result.epoch < before]


def _shared(config: TrainConfig) -> TrainConfig:
    """Leave out what differs between the trials of a study, so that all of them ask for the same data."""
    fields = TrainConfig.model_fields
    return config.model_copy(update={name: fields[name].default for name in PER_TRIAL})


@lru_cache(maxsize=1)
def loaded_plugins(files: tuple[str, ...]) -> Plugins:
    """Load the plugins once in this process."""
    return load_plugins(files)


@lru_cache(maxsize=1)
def _data(config: TrainConfig, manifest: Path) -> Data:
    return prepare(config, loaded_plugins(config.plugins), manifest=manifest)
