"""One run in memory: its model, optimiser and position, the steps of an epoch, and its whole state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from automl_pt.backbones.random_state import device_state, other_states, seed_all, set_device_state, set_other_states
from automl_pt.builtin.validation_metrics import BY_NAME, METRICS
from automl_pt.core.errors import PluginError
from automl_pt.core.seeds import derive_seed
from automl_pt.plugins.metrics import Metric
from automl_pt.training.averaged_weights import AveragedWeights
from automl_pt.training.batch_norm import train_mode
from automl_pt.training.class_weights import class_weights
from automl_pt.training.device import NumberFormat, peak_memory
from automl_pt.training.distributed import ALONE, Group
from automl_pt.training.early_stopping import EarlyStopping, Reason
from automl_pt.training.evaluation import ValidationResult, evaluate
from automl_pt.training.memory import images_that_fit, probed, try_out
from automl_pt.training.moving_average import MovingAverage
from automl_pt.training.result import FIELDS, EpochResult
from automl_pt.training.schedule import lr_factor, proxy_lr_factor
from automl_pt.training.step import Step, make_step_fn

if TYPE_CHECKING:
    from automl_pt.config import TrainConfig
    from automl_pt.data.loader import Loader
    from automl_pt.plugins.optimizers import Optimizer
    from automl_pt.training.checkpoint import Checkpoints

#: called after every step with the epoch's finished batches and their total; returns true to end the run there
AfterStep = Callable[[int, int], bool]
#: what a process requests after a step; the highest request of several applies to all
GO_ON, SAVE, STOP = range(3)


def go_on(batches_done: int, batches: int) -> bool:
    """Continue the run after each step."""
    return False


@dataclass
class TrainingProgress:
    """The position of a run: plain values, saved beside the tensors."""

    epochs_done: int = 0
    #: finished batches of the current epoch
    batches_done: int = 0
    #: seconds spent on the current epoch by earlier processes
    seconds: float = 0.0
    #: the lowest cost of an epoch so far: by default its validation loss, of which earlier versions named it
    best_loss: float = math.inf
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def reason(self) -> Reason | None:
        """Return why the run ended, or None if it has not."""
        return self.history[-1]["reason"] if self.history else None


class Training:
    """One run's model, optimiser and position, and the steps from one epoch to the next.

    `earlier` is a training whose steps this one takes over, from their beginning, because it has the same network.
    """

    def __init__(
        self,
        model: nn.Module,
        train_loader: Loader,
        val_loader: Loader,
        config: TrainConfig,
        *,
        device: torch.device,
        precision: NumberFormat,
        group: Group = ALONE,
        lr_scales: Mapping[str, float] | None = None,
        optimizer: Optimizer | None = None,
        metrics: Sequence[Metric] = METRICS,
        objective: Metric = BY_NAME["loss"],
        classes: Sequence[str] = (),
        earlier: Training | None = None,
    ) -> None:
        self.model, self.config, self.device, self.precision = model, config, device, precision
        self.group, self.base_lr = group, config.lr * (group.size if config.scale_lr else 1)
        self.train_loader, self.val_loader = train_loader, val_loader
        self.metrics, self.objective = metrics, objective
        #: the metrics that failed, each of which has a note
        self._failed: set[str] = set()
        # when a search's winner is trained on all images none is left: no epoch is better than another, the last counts
        self.validates = len(val_loader.labels) > 0
        if earlier is None:
            weights = class_weights(config.class_weights, torch.as_tensor(train_loader.labels).to(device), classes)
            shared: dict[str, Any] = {"device": device, "precision": precision, "group": group, "lr_scales": lr_scales}
            self.step = Step(model, config, class_weights=weights, optimizer=optimizer, **shared)
            self.take_step, self.by_index = make_step_fn(self.step, train_loader, config)
        else:
            self.step, self.take_step, self.by_index = earlier.step, earlier.take_step, earlier.by_index
            self.step.begin_again(config, earlier.first_notes)
            train_loader.resident = earlier.train_loader.resident  # from which a recorded step makes its batches
        self.first_notes: tuple[str, ...] = tuple(self.step.notes)
        #: the weights that count, of an optimiser that is evaluated at others than it trains
        self.averaged = AveragedWeights(self.step) if self.step.optimizer.averages else None
        self.ema = MovingAverage(model, config.ema_decay) if config.ema_decay else None
        self.early_stopping = EarlyStopping(config.patience, config.stop_rule, config.min_delta)
        self.progress = TrainingProgress()
        #: the steps of a proxy run, which has its own learning rates; 0 for a run
        self.steps_in_miniature = 0
        #: images that fit into memory in validation; None for a whole batch
        self.validated_at_once: int | None = None
        # float64 sums millions of losses exactly enough; MPS does not support it
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.loss_sum = torch.zeros((), dtype=dtype, device=device)

    def fit_into(self, free: int) -> None:
        """Split the batch into micro-batches if it does not fit: a GPU tries a step, a CPU compares with `free` bytes.

        `free` is main memory (0: unknown), estimated because the system kills a process that runs out of it.
        """
        batch = -(-max(self.train_loader.batch_sizes) // self.group.size)
        _, channels, side, _ = self.train_loader.images.shape
        if self.device.type != "cpu" and not self.step.tried:
            try_out(self.step, batch, side, channels)
            self.step.tried = True
        if not free or self.device.type != "cpu" or self.step.micro_batch_size is not None:
            return
        self.step.bytes_per_image = self.step.bytes_per_image or probed(self.model, side, channels)
        limit = images_that_fit(self.step.bytes_per_image, free)
        if limit < batch:
            self.step.micro_batch_size = limit
            self.step.notes.append(f"{batch} images need more memory than is free; continuing with {limit} at once")

    def train_epoch(self, after_step: AfterStep, save: Callable[[], None]) -> bool:
        """Train from the current batch to the epoch's end; return False if `after_step` ended it before."""
        epoch, progress = self.progress.epochs_done + 1, self.progress
        train_mode(self.model, keep_statistics=self.config.keeps_batch_norm)
        if progress.batches_done == 0:
            # every epoch starts its own stream, so that other runs in this process cannot shift it
            seed_all(derive_seed(self.config.seed, "epoch", epoch, *([self.group.rank] if self.group.rank else [])))
            self.loss_sum.zero_()
        saved, sizes = time.monotonic(), self.train_loader.batch_sizes
        for batch in self._batches(epoch):
            loss = self.take_step(*batch, lr=self.lr(progress.batches_done))
            self.loss_sum += loss.to(self.loss_sum.dtype) * sizes[progress.batches_done]
            if self.ema is not None:
                self.ema.update(self.model)
            progress.batches_done += 1
            wish = STOP if after_step(progress.batches_done, len(sizes)) else GO_ON
            if time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                wish, saved = max(wish, SAVE), time.monotonic()
            agreed = self.group.highest(wish)
            if agreed == STOP:
                return False
            if agreed == SAVE:
                save()
        return True

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        start = self.progress.batches_done
        return self.train_loader.indices(epoch, start) if self.by_index else self.train_loader.epoch(epoch, start)

    def lr(self, batch: int) -> float:
        """Return the learning rate of the epoch's step `batch`, counted from 0."""
        if self.steps_in_miniature:
            warmup = self.config.warmup_epochs / self.config.epochs
            return self.base_lr * proxy_lr_factor(batch, self.steps_in_miniature, warmup)
        steps = len(self.train_loader.batch_sizes)
        factor = lr_factor(
            self.config.schedule,
            self.progress.epochs_done * steps + batch,
            steps_per_epoch=steps,
            epochs=self.config.epochs,
            warmup_epochs=self.config.warmup_epochs,
        )
        return self.base_lr * factor

    def finish_epoch(self, train_seconds: float, wait_seconds: float) -> tuple[EpochResult, nn.Module]:
        """Validate, decide whether to stop, and return the epoch's result with the module of the kept weights."""
        started = time.perf_counter()
        raw = self._evaluate(evaluated := self.evaluated())
        ema = self._evaluate(self.ema.module) if self.ema is not None else None
        cost, module, averaged = self._cost(raw), evaluated, False
        if ema is not None and self.ema is not None and (self._cost(ema) < cost or not self.validates):
            cost, module, averaged = self._cost(ema), self.ema.module, True
        progress, images = self.progress, sum(self.train_loader.batch_sizes)
        train_loss = self.loss_sum.item() / images
        stop = self.early_stopping.update(self._cost(raw)) if self.validates else _diverged(train_loss)
        last_epoch = progress.epochs_done + 1 == self.config.epochs
        result = EpochResult(
            epoch=progress.epochs_done + 1,
            train_loss=train_loss,
            val_loss=raw.loss,
            val_accuracy=raw.accuracy,
            val_top5=raw.top5,
            lr=self.lr(progress.batches_done - 1),
            images_per_second=images / train_seconds,
            data_wait=min(1.0, wait_seconds / train_seconds),
            peak_memory=peak_memory(self.device),
            seconds=train_seconds + time.perf_counter() - started,
            is_best=cost < progress.best_loss or not self.validates,
            ema_val_loss=None if ema is None else ema.loss,
            ema_val_accuracy=None if ema is None else ema.accuracy,
            reason=stop or ("completed" if last_epoch else None),
            notes=tuple(self.step.notes),
            cost=None if self.by_loss else cost,
            averaged=None if self.by_loss else averaged,
            metrics=_further(raw),
            ema_metrics={} if ema is None else _further(ema),
        )
        self._advance(result, cost)
        return result, module

    def evaluated(self) -> nn.Module:
        """Return the module that is evaluated and saved as this epoch's: the model, or the optimiser's average."""
        if self.averaged is None:
            return self.model
        return self.averaged.update(self.train_loader, self.progress.epochs_done + 1)

    @property
    def by_loss(self) -> bool:
        """Say whether epochs are compared by the validation loss."""
        return self.objective.name == "loss" or not self.validates

    def _cost(self, found: ValidationResult) -> float:
        """Return what the objective makes of an evaluation, the lower the better; NaN where the loss is not finite."""
        if self.by_loss or not math.isfinite(found.loss):
            return found.loss if self.by_loss else math.nan
        if self.objective.name in found.failures:
            raise PluginError(
                f"the objective {self.objective.name} failed",
                given=found.failures[self.objective.name],
                remedy="correct the plugin that registers it, or take another objective",
            )
        return self.objective.cost(found.metrics.get(self.objective.name, math.nan))

    def _advance(self, result: EpochResult, cost: float) -> None:
        self.step.notes.clear()
        if result.is_best:
            self.progress.best_loss = cost
        self.progress = TrainingProgress(
            epochs_done=result.epoch,
            best_loss=self.progress.best_loss,
            history=[*self.progress.history, result.to_dict()],
        )

    def with_save_seconds(self, result: EpochResult, seconds: float) -> EpochResult:
        """Add the duration of saving, the longest of all processes, to an epoch's result; all call it together."""
        result = replace(result, save_seconds=self.group.highest(round(1000 * seconds)) / 1000)
        self.progress.history[-1] = result.to_dict()
        return result

    def _evaluate(self, module: nn.Module) -> ValidationResult:
        found = evaluate(
            module,
            self.val_loader,
            device=self.device,
            precision=self.precision,
            group=self.group,
            at_once=self.validated_at_once,
            metrics=self.metrics,
        )
        for name in sorted(found.failures.keys() - self._failed):
            self._failed.add(name)
            self.step.notes.append(f"the metric {name} is not recorded, because it failed: {found.failures[name]}")
        if found.at_once != self.validated_at_once:
            self.step.notes.append(f"out of memory in validation; continuing with {found.at_once} images at once")
            self.validated_at_once = found.at_once
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as tensors and plain values; all processes call it together."""
        own = f"{self.device.type}_rng"
        return {
            "model": self.model.state_dict(),
            "optimizer": self.step.optimizer.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "early_stopping": asdict(self.early_stopping),
            "progress": asdict(self.progress),
            "loss_sum": self.loss_sum,
            "micro_batch_size": self.step.micro_batch_size,
            "notes": list(self.step.notes),
            "rng": self.group.gather(torch.get_rng_state()[None]),
            "other_rng": self.group.gather(other_states()),
            **({} if self.device.type == "cpu" else {own: self.group.gather(device_state(self.device)[None])}),
        }

    def restore(self, checkpoints: Checkpoints) -> None:
        """Resume from the newest intact checkpoint, if there is one; the next epoch's notes name damaged ones."""
        state, notes = checkpoints.load()
        if state is not None:
            self.load_state_dict(state)
        self.step.notes += notes

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.step.optimizer.load_state_dict(state["optimizer"])
        self.step.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.early_stopping = EarlyStopping(**state["early_stopping"])
        self.progress = TrainingProgress(**state["progress"])
        self.loss_sum.copy_(state["loss_sum"])
        self.step.micro_batch_size = state["micro_batch_size"]
        self.step.notes += state.get("notes", [])  # missing in checkpoints of an earlier version
        torch.set_rng_state(state["rng"][self.group.rank])
        if "other_rng" in state:  # an earlier version stored and seeded only PyTorch's
            set_other_states(state["other_rng"][self.group.rank])
        if (own := state.get(f"{self.device.type}_rng")) is not None:
            set_device_state(self.device, own[self.group.rank])


def _further(found: ValidationResult) -> dict[str, float]:
    """Return the metrics that have no field of their own in an epoch's result."""
    return {name: value for name, value in found.metrics.items() if name not in FIELDS}


def _diverged(loss: float) -> Reason | None:
    return None if math.isfinite(loss) else "diverged"
