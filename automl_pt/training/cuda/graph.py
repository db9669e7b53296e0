"""A training step recorded once as a CUDA graph and replayed: one launch instead of hundreds.

Forward, loss, backward, clipping and optimiser are recorded for a full batch, and the making of the batch before them
where the images lie on the device; the learning rate is a device tensor.
Batches of another size, as the odd last one, are taken by the ordinary step on the same tensors. Where recording
is not possible the ordinary step takes all, and the run's notes say why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from automl_pt.training.step import Step

#: takes what a step does and returns what repeats it on the same tensors
Capture = Callable[[Callable[[], None]], Callable[[], None]]
#: makes float[B, 3, S, S] and int64[B] of indices int64[B]
Make = Callable[[Tensor], tuple[Tensor, Tensor]]
#: takes a batch, as images and labels or as what makes them, and the learning rate; returns the mean loss
TakeStep = Callable[..., Tensor]
#: runs before recording, in which libraries choose kernels and allocate their workspaces
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
    """Takes batches as `step` does; those of `batch_size` images by replaying what `capture` recorded.

    With `make`, which makes images and labels of indices on the device, a batch is given by its indices int64[B] alone,
    and the gathering and augmenting of its images are recorded too.
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
        """Record a step and put everything back that its trial runs changed; return False where that is impossible."""
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
                step.notes.append(f"steps are not recorded as a CUDA graph but taken one by one: {reason}")
        return not self.gave_up

    def _work(self) -> None:
        self.step.optimizer.lr = self.lr
        self.loss.copy_(self.step.capturable_step(*self._made(tuple(self.batch))))


def why_not(step: Step) -> str | None:
    """Say what keeps a step from being recorded, or None."""
    if step.device.type != "cuda":
        return "only CUDA devices record graphs"
    if step.group.size > 1:
        return "several processes exchange gradients within a step"
    if step.precision == "fp16":
        return "the scaler of fp16 decides on the CPU"
    return "micro-batches are asked for" if step.micro_batch_size is not None else None


def recorded(step: Step, batch_size: int, *, wanted: bool, make: Make | None = None) -> TakeStep:
    """Return `step`, recorded for `batch_size` images where that is wanted and possible."""
    return GraphedStep(step, batch_size, make=make) if wanted and why_not(step) is None else step
