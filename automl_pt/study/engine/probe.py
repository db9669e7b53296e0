"""The first part of a trial's first epoch, after which it is ranked: an epoch is a high price for a bad trial.

The run is stopped between two steps with its `last` checkpoint, and goes on from there as if nothing had been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from automl_pt import run
from automl_pt.data.loader import batch_sizes
from automl_pt.data.prepare import Data
from automl_pt.new_training import choose_image_size
from automl_pt.plugins import Plugins
from automl_pt.study.engine.base import Probe, TrialSpec
from automl_pt.study.engine.ranking import last_state, rank_loss


def probe(spec: TrialSpec, should_stop: Callable[[], bool], data: Data, plugins: Plugins) -> Iterator[Probe]:
    """Train to the first of the points in `ranked_at`, a fraction of the first epoch, and say how good the weights are.

    A run that is found at this point is ranked again, to the same figure; one that is past it, or is stopped on the
    way, gives nothing.
    """
    level = spec.ranked_at[0]
    due = due_after(level, _batches(spec, data, plugins))

    def after_step(batches_done: int, batches: int) -> bool:
        return should_stop() or batches_done >= due

    state = last_state(spec.output)
    if _batches_done(state) < due:
        for _ in run.execute(spec.config, spec.output, data=data, plugins=plugins, after_step=after_step):
            raise AssertionError("it stops before the epoch is over")
        state = last_state(spec.output)
    if state is not None and _batches_done(state) == due:
        loss = rank_loss(spec.config, state["model"], data, plugins, always=True)
        yield Probe(level, math.nan if loss is None else loss, state["progress"]["seconds"])


def due_after(level: float, batches: int) -> int:
    """Return the batch of an epoch's `batches` after which the fraction `level` of it is done: the first at least."""
    return max(1, round(level * batches))


def _batches(spec: TrialSpec, data: Data, plugins: Plugins) -> int:
    size = choose_image_size(spec.config, data, plugins.backbone(spec.config.backbone))
    return len(batch_sizes(len(data.pixels("train", size).labels), spec.config.batch_size))


def _batches_done(state: Mapping[str, Any] | None) -> int:
    """Return how many batches of the first epoch a checkpoint holds."""
    return 0 if state is None else int(state["progress"]["batches_done"])
