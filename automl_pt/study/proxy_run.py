"""A trial in miniature: a part of an epoch in which its learning rate is tried and comes to rest, to rank trials by.

The same part of the trial itself tells less of networks such as ResNet-18: there the rate is still high, and the loss
says how much that shakes the weights, which speaks against the rates that win in the end. Measured on curves
(`benchmarks/search_efficiency.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from time import perf_counter

from automl_pt.data.memory import available_memory
from automl_pt.data.prepare import Data
from automl_pt.plugins.manager import Plugins
from automl_pt.runs.setup import new_training, set_up
from automl_pt.study.executor.base import ProxyRun, TrialSpec
from automl_pt.study.ranking import shuffled_loss


def proxy_runs(spec: TrialSpec, should_stop: Callable[[], bool], data: Data, plugins: Plugins) -> Iterator[ProxyRun]:
    """Train in miniature, for each of the points in `ranked_at` within the first epoch; say how good the weights are.

    They are thrown away: each begins with the trial's own, and so does the trial. A probe that is stopped on the way
    gives nothing.
    """
    for level in (point for point in spec.ranked_at if point < 1):
        started = perf_counter()
        loss = _proxy_loss(spec, level, should_stop, data, plugins)
        if loss is None:
            return
        yield ProxyRun(level, loss if math.isfinite(loss) else math.nan, perf_counter() - started)


def _proxy_loss(
    spec: TrialSpec, level: float, should_stop: Callable[[], bool], data: Data, plugins: Plugins
) -> float | None:
    backbone = plugins.backbone(spec.config.backbone, spec.config.backbone_options)
    config = spec.config
    if config.augment == "early":  # no image is seen twice, and so few steps learn more from images as they are
        config = config.model_copy(update={"augment": "none"})
    training = new_training(config, data, backbone, *set_up(config))
    training.fit_into(available_memory())
    due = training.steps_in_miniature = due_after(level, len(training.train_loader.batch_sizes))

    def after_step(batches_done: int, batches: int) -> bool:
        return should_stop() or batches_done >= due

    training.train_epoch(after_step, save=lambda: None)
    done = training.progress.batches_done == due
    return shuffled_loss(training.model, spec.config, data, plugins) if done else None


def due_after(level: float, batches: int) -> int:
    """Return the batch of an epoch's `batches` after which the fraction `level` of it is done: the first at least."""
    return max(1, round(level * batches))
