"""A training step recorded once as a CUDA graph and replayed: one launch instead of hundreds.

Forward, loss, backward, clipping and optimiser are recorded for a full batch; the learning rate is a device tensor.
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
#: runs before recording, in which libraries choose kernels and allocate their workspaces
WARM_UP = 3


def capture_cuda(work: Callable[[], None]) -> Callable[[], None]:
    """Run `work` a few times on a side stream, record it, and return the replay."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
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
    """Takes batches as `step` does; those of `batch_size` images by replaying what `capture` recorded."""

    def __init__(self, step: Step, batch_size: int, capture: Capture = capture_cuda) -> None:
        self.step, self.batch_size, self.capture = step, batch_size, capture
        self.replay: Callable[[], None] | None = None
        self.gave_up = False

    def __call__(self, images: Tensor, labels: Tensor, lr: float) -> Tensor:
        """Update the weights; return the mean loss, in a tensor that the next step overwrites."""
        if self.gave_up or len(images) != self.batch_size:
            return self.step(images, labels, lr)
        if self.replay is None and not self._record(images, labels):
            return self.step(images, labels, lr)
        assert self.replay is not None
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.lr.fill_(lr)
        self.replay()
        return self.loss

    def _record(self, images: Tensor, labels: Tensor) -> bool:
        """Record a step and put everything back that its trial runs changed; return False where that is impossible."""
        step = self.step
        self.images, self.labels = images.clone(), labels.clone()
        self.lr = torch.zeros((), device=step.device)
        self.loss = torch.zeros((), device=step.device)
        tensors = [*step.parameters, *step.optimizer.buffers, *step.model.buffers()]
        saved = [tensor.detach().clone() for tensor in tensors]
        cuda = [step.device] if step.device.type == "cuda" else []
        with torch.random.fork_rng(cuda):
            try:
                self.replay = self.capture(self._work)
            except RuntimeError as error:
                self.gave_up = True
                reason = str(error).splitlines()[0]
                step.notes.append(f"steps are not recorded as a CUDA graph but taken one by one: {reason}")
        with torch.no_grad():
            for tensor, before in zip(tensors, saved, strict=True):
                tensor.copy_(before)
        return not self.gave_up

    def _work(self) -> None:
        self.step.optimizer.lr = self.lr
        self.loss.copy_(self.step.whole(self.images, self.labels))


def why_not(step: Step) -> str | None:
    """Say what keeps a step from being recorded, or None."""
    if step.device.type != "cuda":
        return "only CUDA devices record graphs"
    if step.group.size > 1:
        return "several processes exchange gradients within a step"
    if step.precision == "fp16":
        return "the scaler of fp16 decides on the CPU"
    return "micro-batches are asked for" if step.micro_batch_size is not None else None


def recorded(step: Step, batch_size: int, *, wanted: bool) -> Callable[[Tensor, Tensor, float], Tensor]:
    """Return `step`, recorded for `batch_size` images where that is wanted and possible."""
    return GraphedStep(step, batch_size) if wanted and why_not(step) is None else step
