"""One optimiser step: forward, loss, backward, update; in micro-batches if the whole batch does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automl_pt.backbones.random_state import kept_random_state
from automl_pt.core.errors import ConfigError
from automl_pt.core.out_of_memory import is_out_of_memory
from automl_pt.training.batch_norm import moving_buffers
from automl_pt.training.cuda.compile import CompiledStep
from automl_pt.training.cuda.graph import GraphedStep, TakeStep, why_not
from automl_pt.training.device import release_memory
from automl_pt.training.distributed import ALONE, Group
from automl_pt.training.evaluation import autocast
from automl_pt.training.optimizers import make_optimizer
from automl_pt.training.sgd import SGD

if TYPE_CHECKING:
    from automl_pt.config import TrainConfig
    from automl_pt.data.loader import Loader
    from automl_pt.plugins.optimizers import Optimizer
    from automl_pt.training.device import NumberFormat


class Step:
    """Trains `model` on batches; the effective batch size is always that of the given batch.

    A batch above `micro_batch_size` is split into near-equal micro-batches whose gradients add up to the whole batch's
    mean; batch normalisation then uses the micro-batch, not the batch. When memory runs out the micro-batch is halved
    and the same step is repeated, from the same batch-norm statistics, with an entry in `notes`.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        *,
        device: torch.device,
        precision: NumberFormat,
        class_weights: Tensor | None = None,
        group: Group = ALONE,
        lr_scales: Mapping[str, float] | None = None,
        optimizer: Optimizer | None = None,
    ) -> None:
        self.model, self.config, self.device, self.precision = model, config, device, precision
        self.class_weights, self.group = class_weights, group
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.parameters = list(trained.values())
        self.optimizer = make_optimizer(optimizer, trained, config, lr_scales)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        #: computes the logits: the model, or its compiled version
        self.forward: Callable[[Tensor], Tensor] = model
        self.micro_batch_size = config.micro_batch_size
        self.notes: list[str] = []
        if isinstance(self.optimizer, SGD) and (why := self.optimizer.unfused) is not None:
            self.notes.append(f"weights are updated by single operations, not by PyTorch's fused kernel: {why}")
        #: once known, whether a whole step was tried on a GPU, and the bytes that an image takes on a CPU
        self.tried, self.bytes_per_image = False, 0.0
        self._buffers = [buffer for buffer in model.buffers() if buffer.numel()]
        self._saved = [buffer.clone() for buffer in self._buffers]

    def __call__(self, images: Tensor, labels: Tensor, lr: float) -> Tensor:
        """Update the weights with float[B, 3, S, S] and int64[B]; return the batch's mean loss, on the device.

        Labels may be float[B, classes], too, the share of each class.

        With several processes the batch is this one's share, and the loss is the whole batch's.
        """
        self.optimizer.lr = lr
        loss = self._gradients(images, labels)
        self._update()
        return loss

    @contextmanager
    def restoring_state(self) -> Iterator[None]:
        """Restore, at the end, what the steps in the block changed: weights, optimiser, statistics, random state."""
        tensors, put_back = [*self.parameters, *self._buffers], self.optimizer.remember()
        saved, scaler = [tensor.detach().clone() for tensor in tensors], self.scaler.state_dict()
        try:
            with kept_random_state([self.device]):
                yield
        finally:
            self.optimizer.zero_grad()
            self._copy(tensors, saved)
            put_back()
            self.scaler.load_state_dict(scaler)

    def begin_again(self, config: TrainConfig, notes: Sequence[str]) -> None:
        """Stand before the first step once more, for settings with the same arithmetic; what is recorded stays valid.

        The weights are not this method's concern. `notes` are those of a new step.
        """
        assert isinstance(self.optimizer, SGD)
        self.config, self.micro_batch_size, self.notes = config, config.micro_batch_size, list(notes)
        self.optimizer.begin_again()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def state(self) -> dict[str, list[Tensor]]:
        """Return the tensors that a step changes, by kind."""
        found: dict[str, list[Tensor]] = {
            "weights": [*self.parameters],
            "optimiser": self.optimizer.tensors(),
            "statistics": self._buffers,
        }
        # single numbers count steps, and would hide a small change of the others
        kinds = {kind: [tensor for tensor in tensors if tensor.dim()] for kind, tensors in found.items()}
        return {**kinds, "counters": [tensor for tensors in found.values() for tensor in tensors if not tensor.dim()]}

    def capturable_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Run a step at the current learning rate, without recovery from exhausted memory, so it can be recorded."""
        loss = self._attempt(images, labels)
        self._update()
        return loss

    def _gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        self._copy(self._saved, self._buffers)
        while True:
            try:
                loss = self._attempt(images, labels)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or (self.micro_batch_size or len(images)) == 1:
                    raise
                self._copy(self._buffers, self._saved)
            else:
                return self._average(loss, labels)
            self._halve(len(images))

    def _attempt(self, images: Tensor, labels: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        parts = math.ceil(len(images) / (self.micro_batch_size or len(images)))
        return self._backward(images, labels) if parts == 1 else self._accumulate(images, labels, parts)

    def _average(self, loss: Tensor, labels: Tensor) -> Tensor:
        if self.group.size == 1:
            return loss
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return self.group.average(gradients, moving_buffers(self.model), loss, self._weight(labels))

    def _update(self) -> None:
        if self.config.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)  # type: ignore[arg-type]  # as below
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_grad_norm)
        self.scaler.step(self.optimizer)  # type: ignore[arg-type]  # it has what a scaler asks of an optimiser
        self.scaler.update()

    def _weight(self, labels: Tensor) -> Tensor:
        """Return the divisor of the batch's summed loss: its number of images, or the sum of their class weights."""
        if self.class_weights is not None:
            own = labels @ self.class_weights if labels.is_floating_point() else self.class_weights[labels]
            return own.sum()
        return torch.full((), float(len(labels)), device=self.device)

    def _backward(self, images: Tensor, labels: Tensor) -> Tensor:
        if labels.is_floating_point():  # PyTorch's mean divides these by the images, whatever the classes' weights
            loss = self._loss(images, labels, "sum") / self._weight(labels)
        else:
            loss = self._loss(images, labels, "mean")
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # PyTorch's own, without annotations
        return loss.detach()

    def _accumulate(self, images: Tensor, labels: Tensor, parts: int) -> Tensor:
        whole = self._weight(labels)
        total = torch.zeros((), device=self.device)
        for some_images, some_labels in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
            loss = self._loss(some_images, some_labels, "sum") / whole
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # PyTorch's own, without annotations
            total += loss.detach()
        return total

    def _loss(self, images: Tensor, labels: Tensor, reduction: str) -> Tensor:
        try:
            with autocast(self.device, self.precision):
                logits = self.forward(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            given = f"batch_size: a single image of {images.shape[-1]} pixels has no spread for batch normalisation"
            raise ConfigError([f"{given}; use a batch size above 1, or larger images"]) from error
        return F.cross_entropy(
            logits.float(),
            labels,
            weight=self.class_weights,
            reduction=reduction,
            label_smoothing=self.config.label_smoothing,
        )

    def _halve(self, batch_size: int) -> None:
        before = min(self.micro_batch_size or batch_size, batch_size)
        self.micro_batch_size = math.ceil(before / 2)
        self.optimizer.zero_grad()
        release_memory(self.device)
        self.notes.append(f"out of memory with {before} images at once; continuing with {self.micro_batch_size}")

    @staticmethod
    def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
        if targets:
            with torch.no_grad():
                torch._foreach_copy_(targets, sources)


def make_step_fn(step: Step, loader: Loader, config: TrainConfig) -> tuple[TakeStep, bool]:
    """Return the function that executes a run's steps, and whether it takes batches as indices.

    It does if steps are recorded and the images are on the device, because the recorded step then creates the batch;
    not if batches are mixed, which draws random numbers on the CPU.
    """
    batch_size, split, obstacle = loader.batch_sizes[0], loader.resident, why_not(step)
    by_index = config.cuda_graph and obstacle is None and split is not None and not loader.policy.mixes
    make = split.batch if split is not None and by_index else None
    if config.cuda_graph and obstacle is not None and step.device.type == "cuda":
        step.notes.append(f"steps are not recorded as a CUDA graph but run one by one: {obstacle}")
    if config.compile == "always" and step.device.type != "cuda":
        step.notes.append(f"the network is not compiled: on {step.device.type} that gains nothing")

    def record() -> TakeStep:
        return GraphedStep(step, batch_size, make=make) if config.cuda_graph and obstacle is None else step

    if config.compile == "always" and step.device.type == "cuda":
        return CompiledStep(step, batch_size, record, make=make), by_index
    return record(), by_index
