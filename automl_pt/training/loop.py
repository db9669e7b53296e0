"""The training loop: a generator that yields one EpochResult per epoch.

Pruning, progress and logging are in the `for` loop around it. Leaving that loop stops the run. A result may be seen
before it is on disk; leaving the loop saves what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from automl_pt.training.batch_norm import train_mode as train_mode
from automl_pt.training.device import synchronise
from automl_pt.training.result import EpochResult
from automl_pt.training.saving import SaveModel, Saving
from automl_pt.training.state import AfterStep as AfterStep
from automl_pt.training.state import Training as Training
from automl_pt.training.state import go_on as go_on

if TYPE_CHECKING:
    from automl_pt.training.checkpoint import Checkpoints


def train(
    training: Training,
    *,
    checkpoints: Checkpoints | None = None,
    save_model: SaveModel | None = None,
    after_step: AfterStep = go_on,
    share: float = 0.0,
    must_save: Callable[[int], bool] = lambda epoch: False,
    after_save: Callable[[], None] = lambda: None,
) -> Iterator[EpochResult]:
    """Yield one result per epoch from the position of `training` until the run ends; the last one has the reason.

    `save_model` receives the weights of an epoch that is the best so far (of the last epoch, with `keep="last"`), then
    `last` is saved in `checkpoints`, then `after_save` writes the history: a run killed in between repeats the epoch
    and gets the same weights. This happens after every epoch, or with a `share` after those that `Saving` chooses, and
    whenever the generator is left. When `after_step` returns true the step is finished, the state is saved, and the
    generator ends without a result for that epoch.
    """
    saving = Saving(training, checkpoints, save_model, share=share, must_save=must_save, after_save=after_save)
    while training.progress.reason is None:
        started, waited = time.perf_counter() - training.progress.seconds, training.train_loader.wait_seconds
        finished = training.train_epoch(after_step, saving.save)
        synchronise(training.device)
        training.progress.seconds = time.perf_counter() - started
        if not finished:
            saving.save()
            saving.after_save()
            return
        result, module = training.finish_epoch(training.progress.seconds, training.train_loader.wait_seconds - waited)
        try:
            yield saving.epoch_done(result, module)
        except GeneratorExit:
            saving.catch_up()
            raise
