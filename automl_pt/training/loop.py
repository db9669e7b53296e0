"""The training loop: a generator that yields one EpochResult per epoch.

Pruning, progress and logging are in the `for` loop around it. Leaving that loop stops the run: the state needed to
resume is on disk before an epoch's result is yielded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from automl_pt.training.batch_norm import train_mode as train_mode
from automl_pt.training.result import EpochResult
from automl_pt.training.state import AfterStep as AfterStep
from automl_pt.training.state import Training as Training
from automl_pt.training.state import go_on as go_on

if TYPE_CHECKING:
    from automl_pt.training.checkpoint import Checkpoints

SaveModel = Callable[[Mapping[str, Tensor], EpochResult, list[EpochResult]], None]


def train(
    training: Training,
    *,
    checkpoints: Checkpoints | None = None,
    save_model: SaveModel | None = None,
    after_step: AfterStep = go_on,
) -> Iterator[EpochResult]:
    """Yield one result per epoch from the position of `training` until the run ends; the last one has the reason.

    `last` is saved in `checkpoints` before an epoch's result is yielded. `save_model` receives the weights of every
    epoch that is the best so far (of every epoch, with `keep="last"`) before `last` is written, so a run killed in
    between repeats the epoch and gets the same weights. When `after_step` returns true the step is finished, the state
    is saved, and the generator ends without a result for that epoch.
    """
    config = training.config

    def save() -> None:
        if checkpoints is not None:
            state, progress = training.state_dict(), training.progress
            if training.group.leads:
                checkpoints.save(state, epoch=progress.epochs_done, step=progress.batches_done)

    while training.progress.reason is None:
        started, waited = time.perf_counter() - training.progress.seconds, training.train_loader.wait_seconds
        finished = training.train_epoch(after_step, save)
        training.progress.seconds = time.perf_counter() - started
        if not finished:
            save()
            return
        result, module = training.finish_epoch(training.progress.seconds, training.train_loader.wait_seconds - waited)
        saving = time.perf_counter()
        if save_model is not None and training.group.leads and (result.is_best or config.keep == "last"):
            history = [EpochResult.from_dict(entry) for entry in training.progress.history]
            last = training.averaged.module if training.averaged is not None else training.model
            save_model((module if config.keep == "best" else last).state_dict(), result, history)
        save()
        yield training.saved(result, time.perf_counter() - saving)
