"""Runs a trial of a real study: yields the epochs of its run, recorded ones first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from automl_pt.config import SHARED, TrainConfig
from automl_pt.core.errors import NoLocksError, OutputError
from automl_pt.core.locks import locked
from automl_pt.data.by_content import data_by_content, has_pool, pool_of
from automl_pt.data.prepare import Data, prepare
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.runs import run
from automl_pt.runs.directory import history
from automl_pt.runs.setup import choose_image_size
from automl_pt.runs.start import settled
from automl_pt.study.executor.base import Step, TrialSpec
from automl_pt.study.executor.linear_probe import linear_probe
from automl_pt.study.proxy_run import proxy_runs
from automl_pt.study.ranking import last_state, rank_loss
from automl_pt.training.result import EpochResult

#: seconds within which a process that paused a trial, or lost its coordinator, releases the trial's folder
LEAVING = 10.0
#: settings that may differ between the trials of a study, and say nothing of its data
PER_TRIAL = ("seed", *(name for name in TrainConfig.model_fields if name not in SHARED))


def make_trial(spec: TrialSpec, should_stop: Callable[[], bool]) -> Iterator[Step]:
    """Return the trial's epochs; data and plugins are prepared once per process, from the study's manifest."""
    plugins = loaded_plugins(spec.config.plugins)
    return epochs(spec, should_stop, _data(_shared(spec.config), spec.manifest, spec.by_content), plugins)


def missing_files(spec: TrialSpec) -> list[str]:
    """Name the files of decoded images that a trial needs and that this machine lacks."""
    plugins = loaded_plugins(spec.config.plugins)
    data = data_by_content(_shared(spec.config), plugins, spec.manifest)
    backbone = plugins.backbone(spec.config.backbone, spec.config.backbone_options)
    name = pool_of(data.manifest, choose_image_size(spec.config, data, backbone))
    return [] if has_pool(name, spec.config.cache_dir) else [name]


def epochs(spec: TrialSpec, should_stop: Callable[[], bool], data: Data, plugins: Plugins) -> Iterator[Step]:
    """Yield the epochs in the run's history, then train the others."""
    backbone = plugins.backbone(spec.config.backbone, spec.config.backbone_options)
    spec = replace(spec, config=settled(spec.config, backbone, data.hints))
    if spec.number < 0:
        yield from linear_probe(spec, should_stop, data, plugins)
        return
    if spec.output.exists():  # proxy runs create none
        await_leaving(spec.output, should_stop)
    seen = 0
    past = history(spec.output)
    for result in past:
        # only of the last epoch the weights are still there; what earlier ones were ranked by is in the trial store
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

    results = run.execute(
        spec.config,
        spec.output,
        data=data,
        plugins=plugins,
        after_step=after_step,
        worth_saving=spec.worth_saving,
        must_save=partial(_is_read, spec),
    )
    for result in results:
        yield from _missed(spec.output, seen, result.epoch)
        yield _ranked(result, spec, data, plugins)
        seen = result.epoch
    yield from _missed(spec.output, seen, spec.config.epochs + 1)


def _is_read(spec: TrialSpec, epoch: int) -> bool:
    """Return whether others read the weights of `epoch`: at rungs, or if the rule has none, from the first pause on."""
    return epoch in spec.ranked_at or epoch == spec.next_rung or (not spec.ranked_at and epoch > spec.next_rung)


def await_leaving(output: Path, should_stop: Callable[[], bool], limit: float = LEAVING) -> None:
    """Wait until a trial's folder is unlocked: it may be promoted while the process that paused it is still ending.

    After `limit` seconds the run starts anyway, and reports the locked folder.
    """
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline and not should_stop():
        try:
            with locked(output / ".lock", wait=False):
                return
        except NoLocksError:
            return  # the run reports the error
        except OutputError:
            time.sleep(0.02)


def _ranked(result: EpochResult, spec: TrialSpec, data: Data, plugins: Plugins) -> EpochResult:
    """Add the ranking loss after the epochs at which the pruning rule compares trials."""
    if result.epoch not in spec.ranked_at or result.reason is not None:
        return result
    state = last_state(spec.output)
    if state is None:
        return result
    weights = state.get("averaged") or state["model"]  # an earlier version had no averages
    return replace(result, rank_loss=rank_loss(spec.config, weights, data, plugins))


def _missed(output: Path, seen: int, before: int) -> list[EpochResult]:
    """Return epochs that are in the checkpoint but not in the history, because the run was killed in between."""
    return [result for result in history(output) if seen < result.epoch < before]


def _shared(config: TrainConfig) -> TrainConfig:
    """Remove the settings that differ between trials, so that all trials request the same data."""
    fields = TrainConfig.model_fields
    return config.model_copy(update={name: fields[name].default for name in PER_TRIAL})


@lru_cache(maxsize=1)
def loaded_plugins(files: tuple[str, ...]) -> Plugins:
    """Load the plugins once in this process."""
    return load_plugins(files)


@lru_cache(maxsize=1)
def _data(config: TrainConfig, manifest: Path, by_content: bool) -> Data:
    if by_content:
        return data_by_content(config, loaded_plugins(config.plugins), manifest)
    return prepare(config, loaded_plugins(config.plugins), manifest=manifest)
