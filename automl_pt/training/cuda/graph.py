"""Records a training step as a CUDA graph and replays it: one launch instead of hundreds.

Forward, loss, backward, clipping and optimiser are recorded once for each batch size, and so is the creation of the
batch if the images are on the device; the learning rate is a device tensor. All recordings share one memory pool,
because only one of them runs at a time. Each is checked: from the same state, a replay and an ordinary step must give
the same loss, weights, optimiser state and statistics. If recording fails, or the check does, the ordinary step runs
all batches, and the run's notes say why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from automl_pt.core.errors import AutomlError, PluginError, RecordingError
from automl_pt.core.out_of_memory import Recording, is_device_lost, is_out_of_memory

if TYPE_CHECKING:
    from automl_pt.training.step import Step

#: receives the work of a step and returns a function that repeats it on the same tensors
Capture = Callable[[Callable[[], None]], Callable[[], None]]
#: creates float[B, 3, S, S] and int64[B] from indices int64[B]
Make = Callable[[Tensor], tuple[Tensor, Tensor]]
#: receives a batch, as images and labels or as indices, and the learning rate; returns the mean loss
TakeStep = Callable[..., Tensor]
#: what a step changed in the tensors of each kind of its state
Changes = Mapping[str, Sequence[Tensor]]
#: runs before recording, in which libraries choose kernels and allocate workspaces
WARM_UP = 3
#: largest difference of the loss, and of the change of each kind of state, between a replay and an ordinary step; both
#: run the same kernels, but some of these add in an order that differs from run to run
LOSS_TOLERANCE, STEP_TOLERANCE = 0.01, 0.1
#: the first version of PyTorch that can continue after a failed recording (pytorch/pytorch#180395): before it the
#: allocators of the GPU and of pinned memory stay in the failed recording, and no public call ends that
RECOVERS = (2, 12)


def obstacle() -> str | None:
    """Return why this process records no steps, or None."""
    if Recording.forbidden is not None or Recording.replaceable or recovers():
        return Recording.forbidden
    return f"PyTorch {torch.__version__} cannot continue after a failed recording; 2.12 can"


def recovers() -> bool:
    """Return whether this PyTorch can continue after a failed recording."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= RECOVERS


@cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream for recordings on a device: cuBLAS keeps a workspace for each while the process lives."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # PyTorch's own, without annotations


class CudaCapture:
    """Records on one device; all recordings share a memory pool."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.pool = device, cast("Any", None)

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Run `work` a few times on a side stream, record it, and return the replay."""
        # without it the recording listens to a stream of the current device, and misses work on another one
        with torch.cuda.device(self.device):
            stream = capture_stream(self.device)
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    work()
            torch.cuda.current_stream(self.device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # calls of other threads, one of which pins memory, do not invalidate the recording then
            with torch.cuda.graph(graph, pool=self.pool, stream=stream, capture_error_mode="thread_local"):
                work()
        return graph.replay


class Recorded:
    """One batch size: the tensors that a replay reads, the replay, and the loss that it writes."""

    def __init__(self, step: Step, batch: tuple[Tensor, ...], make: Make | None) -> None:
        self.step, self.make = step, make
        self.batch = [part.clone() for part in batch]
        self.lr = torch.zeros((), device=step.device)
        self.loss = torch.zeros((), device=step.device)
        self.replay: Callable[[], None] | None = None

    def work(self) -> None:
        """Take a step on the tensors kept here: what is recorded."""
        self.step.optimizer.lr = self.lr
        images, labels = self.make(*self.batch) if self.make is not None else self.batch
        self.loss.copy_(self.step.capturable_step(images, labels))

    def record(self, capture: Capture, lr: float) -> str | None:
        """Record and check the step, and restore all that this changes; return what is wrong, or None."""
        self.lr.fill_(lr)
        with self.step.restoring_state():
            replay = capture(self.work)
        with self.step.restoring_state():
            before = {kind: [one.detach().clone() for one in tensors] for kind, tensors in self.step.state().items()}
            self.work()
            expected = self._outcome(before)
        with self.step.restoring_state():
            self.loss.fill_(torch.nan)
            replay()
            found = self._outcome(before)
        if (wrong := difference(expected, found)) is None:
            self.replay = replay
        return wrong

    def __call__(self, batch: tuple[Tensor, ...], lr: float) -> Tensor:
        """Replay the step with other images and another rate; the loss is overwritten by the next replay."""
        assert self.replay is not None
        for target, source in zip(self.batch, batch, strict=True):
            target.copy_(source)
        self.lr.fill_(lr)
        self.replay()
        return self.loss

    def _outcome(self, before: Changes) -> tuple[float, Changes]:
        pairs = {kind: zip(tensors, before[kind], strict=True) for kind, tensors in self.step.state().items()}
        return float(self.loss), {kind: [(new.detach() - old).float() for new, old in of] for kind, of in pairs.items()}


def difference(expected: tuple[float, Changes], found: tuple[float, Changes]) -> str | None:
    """Return how a replay's loss and changes of the state differ from those of an ordinary step; None if equal."""
    loss, other = expected[0], found[0]
    if not abs(loss - other) <= LOSS_TOLERANCE * max(abs(loss), 1e-3):
        return f"a replay gives the loss {other:.6g}, an ordinary step {loss:.6g}"
    for kind, changes in expected[1].items():
        if not changes:
            continue
        size = torch.stack([change.norm() for change in changes]).norm()
        pairs = zip(changes, found[1][kind], strict=True)
        apart = torch.stack([(ordinary - replayed).norm() for ordinary, replayed in pairs]).norm()
        if not bool(apart <= STEP_TOLERANCE * size):
            return f"a replay moves the {kind} {float(apart / size):.2g} of a step away from an ordinary step"
    return None


class GraphedStep:
    """Takes batches as `step` does, by replaying what `capture` recorded for batches of that many images.

    A batch of another size than `batch_size`, as the smaller last one, is recorded, too. Where that fails batches of
    this size alone are taken as single steps, in micro-batches if memory does not last for them. With `make`, which
    makes images and labels of indices on the device, a batch is given by its indices int64[B] alone, and the gathering
    and augmenting of its images are recorded too.
    """

    def __init__(self, step: Step, batch_size: int, capture: Capture | None = None, make: Make | None = None) -> None:
        self.step, self.batch_size, self.make = step, batch_size, make
        self.capture = capture or CudaCapture(step.device)
        self.recorded: dict[int, Recorded | None] = {}
        #: images that memory lasts for in batches of a size that is not recorded
        self.at_once: dict[int, int | None] = {}
        self.gave_up = False

    def __call__(self, *batch: Tensor, lr: float) -> Tensor:
        """Update the weights; return the mean loss, in a tensor that the next step overwrites."""
        size = len(batch[0])
        if self.gave_up or self.step.micro_batch_size is not None:
            self.recorded.clear()  # a recording that is not replayed must not keep its memory
            return self._ordinary(batch, lr)
        if size not in self.recorded:
            self._record(size, batch, lr)
        found = self.recorded.get(size)
        return self._ordinary(batch, lr) if found is None else found(batch, lr)

    def _ordinary(self, batch: tuple[Tensor, ...], lr: float) -> Tensor:
        images, labels = self.make(*batch) if self.make is not None else batch
        size = len(labels)
        if size == self.batch_size or self.gave_up or self.step.micro_batch_size is not None:
            return self.step(images, labels, lr=lr)
        self.step.micro_batch_size = self.at_once.get(size)
        loss = self.step(images, labels, lr=lr)
        # batches of this size alone are cut where memory ran out; the others are replayed
        self.at_once[size], self.step.micro_batch_size = self.step.micro_batch_size, None
        return loss

    def _record(self, size: int, batch: tuple[Tensor, ...], lr: float) -> None:
        found = Recorded(self.step, batch, self.make)
        self.recorded[size] = None
        try:
            wrong = found.record(self.capture, lr)
        except Exception as raised:  # whatever a network or an optimiser does that cannot be recorded
            error = raised if isinstance(raised, AutomlError) else first_cause(raised)
            if is_device_lost(raised) or (isinstance(error, AutomlError) and not isinstance(error, PluginError)):
                raise
            wrong = str(error).splitlines()[0] if str(error) else type(error).__name__
            if size != self.batch_size and is_out_of_memory(error):
                torch.cuda.empty_cache()
                return
            if self.step.device.type == "cuda" and not recovers():
                raise RecordingError(error) from raised
        if wrong is None:
            self.recorded[size] = found
            return
        if size == self.batch_size:
            self.gave_up = True
            self.step.notes.append(f"steps are not recorded as a CUDA graph but run one by one: {wrong}")
        else:
            self.step.notes.append(f"batches of {size} images are not replayed from a CUDA graph, others are: {wrong}")


def first_cause(error: BaseException) -> BaseException:
    """Return the error that began it: where recording is ended after an error, PyTorch raises another one for that."""
    while error.__context__ is not None:
        error = error.__context__
    return error


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
    if step.micro_batch_size is not None:
        return "micro-batches were requested"
    return obstacle()
