"""Records a training step as a CUDA graph and replays it: one launch instead of hundreds.

Forward, loss, backward, clipping and optimiser are recorded for a full batch, and so is the creation of the batch
if the images are on the device; the learning rate is a device tensor. Batches of another size, such as the last one,
use the ordinary step on the same tensors. If recording is not possible all do, and the run's notes say why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from automl_pt.training.step import Step

#: receives the work of a step and returns a function that repeats it on the same tensors
Capture = Callable[[Callable[[], None]], Callable[[], None]]
#: creates float[B, 3, S, S] and int64[B] from indices int64[B]
Make = Callable[[Tensor], tuple[Tensor, Tensor]]
#: receives a batch, as images and labels or as indices, and the learning rate; returns the mean loss
TakeStep = Callable[..., Tensor]
#: runs before recording, in which libraries choose kernels and allocate workspaces
WARM_UP = 3


def capture_cuda(work: Callable[[], None]) -> Callable[[], None]:
    """Run `work` a few times on a side stream, record it, and return the replay."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # PyTorch's own, without annotations
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class GraphedStep:
    """Runs batches like `step`; those of `batch_size` images by replaying what `capture` recorded.

    With `make`, which creates images and labels from indices on the device, a batch is given by its indices int64[B],
    and gathering and augmenting its images are recorded too.
    """

    def __init__(self, step: Step, batch_size: int, capture: Capture | None = None, make: Make | None = None) -> None:
        self.step, self.batch_size, self.capture, self.make = step, batch_size, capture or capture_cuda, make
        self.replay: Callable[[], None] | None = None
        self.gave_up = False

    def __call__(self, *batch: Tensor, lr: float) -> Tensor:
        """Update the weights; return the mean loss, in a tensor that the next step overwrites."""
        plain = self.gave_up or self.step.micro_batch_size is not None or len(batch[0]) != self.batch_size
        if plain or (self.replay is None and not self._record(batch)):
            return self.step(*self._made(batch), lr=lr)
        assert self.replay is not None
        for target, source in zip(self.batch, batch, strict=True):
            target.copy_(source)
        self.lr.fill_(lr)
        self.replay()
        return self.loss

    def _made(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        if self.make is not None:
            return self.make(*batch)
        images, labels = batch
        return images, labels

    def _record(self, batch: tuple[Tensor, ...]) -> bool:
        """Record a step and restore everything that its trial runs changed; return False if that is impossible."""
        step = self.step
        self.batch = [part.clone() for part in batch]
        self.lr = torch.zeros((), device=step.device)
        self.loss = torch.zeros((), device=step.device)
        with step.restoring_state():
            try:
                self.replay = self.capture(self._work)
            except RuntimeError as error:
                self.gave_up = True
                reason = str(error).splitlines()[0]
                step.notes.append(f"steps are not recorded as a CUDA graph but run one by one: {reason}")
        return not self.gave_up

    def _work(self) -> None:
        self.step.optimizer.lr = self.lr
        self.loss.copy_(self.step.capturable_step(*self._made(tuple(self.batch))))


def why_not(step: Step) -> str | None:
    """Return why a step cannot be recorded, or None."""
    if step.device.type != "cuda":
        return "only CUDA devices record graphs"
    if step.group.size > 1:
        return "several processes exchange gradients within a step"
    if not step.optimizer.capturable:
        return f"the optimiser {step.config.optimizer} keeps numbers outside the device"
    if step.precision == "fp16":
        return "the scaler of fp16 decides on the CPU"
    return "micro-batches were requested" if step.micro_batch_size is not None else None


def recorded(step: Step, batch_size: int, *, wanted: bool, make: Make | None = None) -> TakeStep:
    """Return `step`, recorded for `batch_size` images if wanted and possible."""
    return GraphedStep(step, batch_size, make=make) if wanted and why_not(step) is None else step
