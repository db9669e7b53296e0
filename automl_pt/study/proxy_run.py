"""Proxy runs: short low-fidelity trainings, of part of an epoch with annealed learning rate, to rank trials by.

The first part of the trial itself ranks worse for networks such as ResNet-18, because its learning rate is still high:
the loss then measures how much that disturbs the weights, which counts against the rates that win in the end.
`benchmarks/search_efficiency.py` measures this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from time import perf_counter

from automl_pt.data.memory import available_memory
from automl_pt.data.prepare import Data
from automl_pt.plugins.manager import Plugins
from automl_pt.runs.network import leaving
from automl_pt.runs.setup import set_up, training_and_network
from automl_pt.study.executor.base import TrialSpec
from automl_pt.study.executor.messages import ProxyRun
from automl_pt.study.ranking import shuffled_loss


def proxy_runs(spec: TrialSpec, should_stop: Callable[[], bool], data: Data, plugins: Plugins) -> Iterator[ProxyRun]:
    """Run a proxy run for each point of `ranked_at` within the first epoch, and yield its ranking loss.

    All proxy runs of a study have the same seed, so that they differ in their settings alone (common random numbers):
    they start from the same weights, and see the images in the same order.

    It is validated on as many images as it trained on, where trials start from weights, because the network learns from
    few images there: validation would cost as much as training where there are many validation images.

    Its weights are discarded: each proxy run starts from the trial's initial weights, and so does the trial. A proxy
    run that is stopped yields nothing.
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
    if spec.proxy_seed is not None:
        config = config.model_copy(update={"seed": spec.proxy_seed})
    if config.augment == "early":  # no image is seen twice, and few steps learn more from unaugmented images
        config = config.model_copy(update={"augment": "none"})
    training, network = training_and_network(config, data, backbone, *set_up(config), plugins=plugins)
    with leaving(network, training):
        training.fit_into(available_memory())
        due = training.steps_in_miniature = due_after(level, len(training.train_loader.batch_sizes))

        def after_step(batches_done: int, batches: int) -> bool:
            return should_stop() or batches_done >= due

        training.train_epoch(after_step, save=lambda: None)
        if training.progress.batches_done != due:
            return None
        model, most = training.evaluated(), None
        if config.starts_from_weights:
            most = round(level * len(training.train_loader.labels))
        return shuffled_loss(model, spec.config, data, plugins, training.precision, most=most)


def due_after(level: float, batches: int) -> int:
    """Return the batch, of an epoch's `batches`, after which the fraction `level` is done; at least the first."""
    return max(1, round(level * batches))
