"""When a run puts its model and its checkpoint on disk: so rarely that saving takes a small share of its time.

A killed run resumes from what is on disk and computes the epochs after it again, to the same bits. So a result may be
seen before it is on disk. The best weights of epochs that are not on disk yet are kept in memory; model, checkpoint and
history are written together, in this order, so that the disk never holds an older model than its checkpoint knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from automl_pt.training.result import EpochResult

if TYPE_CHECKING:
    from automl_pt.training.checkpoint import Checkpoints
    from automl_pt.training.state import Training

SaveModel = Callable[[Mapping[str, Tensor], EpochResult, list[EpochResult]], None]
#: bytes per second that a save is taken to write before one was timed, and how often the weights are in what it writes:
#: the model, and the checkpoint's weights and momentum
SPEED, COPIES = 2e8, 3


class Saving:
    """Saves the state of `training`: at every epoch, or once saving takes at most `share` of the time.

    Epochs for which `must_save` is true are saved in any case, as are the last one and those of several processes.
    `after_save` is called after each save.
    """

    def __init__(
        self,
        training: Training,
        checkpoints: Checkpoints | None,
        save_model: SaveModel | None,
        *,
        share: float = 0.0,
        must_save: Callable[[int], bool] = lambda epoch: False,
        after_save: Callable[[], None] = lambda: None,
    ) -> None:
        self.training, self.checkpoints, self.save_model = training, checkpoints, save_model
        self.share, self.must_save, self.after_save = share, must_save, after_save
        self.is_behind = False
        self._kept: tuple[Mapping[str, Tensor], EpochResult, list[EpochResult]] | None = None
        written = COPIES * sum(tensor.nbytes for tensor in training.model.state_dict().values())
        self._seconds, self._since = written / SPEED, time.monotonic()

    def epoch_done(self, result: EpochResult, module: nn.Module) -> EpochResult:
        """Save an epoch, or keep in memory what is needed to save it later; return the result with the time it took."""
        began, training = time.perf_counter(), self.training
        due, keep = self._is_due(result), training.config.keep
        if self.save_model is not None and training.group.leads and (result.is_best or keep == "last"):
            last = training.averaged.module if training.averaged is not None else training.model
            state = (module if keep == "best" else last).state_dict()
            kept = state if due else {name: tensor.clone() for name, tensor in state.items()}
            self._kept = kept, result, [EpochResult.from_dict(entry) for entry in training.progress.history]
        self.is_behind = True
        if due:
            self.save()
        result = training.with_save_seconds(result, time.perf_counter() - began)
        if due:
            self.after_save()
        return result

    def save(self) -> None:
        """Put on disk the best weights that are not there yet, then the checkpoint."""
        began, training = time.monotonic(), self.training
        if self._kept is not None and self.save_model is not None:
            self.save_model(*self._kept)
        self._kept = None
        if self.checkpoints is not None:
            state, progress = training.state_dict(), training.progress
            if training.group.leads:
                self.checkpoints.save(state, epoch=progress.epochs_done, step=progress.batches_done)
        self._since = time.monotonic()
        self._seconds, self.is_behind = self._since - began, False

    def catch_up(self) -> None:
        """Save what is not on disk yet: the run is left."""
        if self.is_behind:
            self.save()
            self.after_save()

    def _is_due(self, result: EpochResult) -> bool:
        if not self.share or self.training.group.size > 1 or result.reason is not None or self.must_save(result.epoch):
            return True
        passed = time.monotonic() - self._since
        return passed * self.share >= self._seconds or passed >= 60 * self.training.config.checkpoint_minutes
