"""Whether compiling the network pays within a run: asked of a few steps' time, and asked again of the compiled ones.

Compiling costs tens of seconds and makes a step faster by a share that nobody knows beforehand. So it is not begun
before the steps left, sped up by a hopeful share, would earn its usual cost; and what it gave is kept only if it is
faster. Only CUDA devices are asked: on CPUs 35 to 200 s of compiling gave 3 % more or less.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from automl_pt.training.cuda.graph import TakeStep
    from automl_pt.training.step import Step

#: hoped-for share of a step's time that compiling saves, and the seconds that it usually costs; assumptions, which no
#: GPU has confirmed
GAIN, COST = 0.2, 60.0
#: steps taken before the first is timed (recording, choice of kernels), and steps timed
WARM_UP, TIMED = 5, 20

Compiler = Callable[[nn.Module], Callable[[Tensor], Tensor]]


def pays(step_seconds: float, steps_left: int) -> bool:
    """Say whether compiling can be expected to earn its cost in the steps that are left."""
    return step_seconds * steps_left * GAIN > COST


class CompiledWhenItPays:
    """Takes steps through what `record` makes of `step`, and compiles the network on the way if that pays.

    `steps_left` tells how many steps the run has still to do; `clock` gives seconds, after waiting for the device. Only
    batches of `batch_size` are timed. What was decided is told in the step's notes.
    """

    def __init__(
        self,
        step: Step,
        batch_size: int,
        record: Callable[[], TakeStep],
        steps_left: Callable[[], int],
        *,
        compiler: Compiler | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.step, self.batch_size, self.record, self.steps_left = step, batch_size, record, steps_left
        self.compiler, self.clock = compiler or compiled, clock or clock_of(step.device)
        self.take, self.plain, self.plain_seconds = record(), cast("TakeStep | None", None), 0.0
        self.taken, self.seconds, self.decided = 0, 0.0, False

    def __call__(self, *batch: Tensor, lr: float) -> Tensor:
        """Take a step; return its mean loss."""
        if self.decided or len(batch[0]) != self.batch_size:
            return self.take(*batch, lr=lr)
        self.taken += 1
        if self.taken <= WARM_UP:
            return self.take(*batch, lr=lr)
        began = self.clock()
        loss = self.take(*batch, lr=lr)
        self.seconds += self.clock() - began
        if self.taken == WARM_UP + TIMED:
            self._decide(self.seconds / TIMED)
            self.taken, self.seconds = 0, 0.0
        return loss

    def _decide(self, seconds: float) -> None:
        if self.plain is None:
            self._try(seconds)
        else:
            self._choose(seconds)

    def _try(self, seconds: float) -> None:
        if not pays(seconds, self.steps_left()):
            self.decided = True
            return
        self.plain, self.plain_seconds = self.take, seconds
        self.step.forward = self.compiler(self.step.model)
        self.take = self._guarded(self.record())

    def _guarded(self, take: TakeStep) -> TakeStep:
        """Fall back to the plain steps when the compiler, which works at the first step, fails."""

        def guarded(*batch: Tensor, lr: float) -> Tensor:
            try:
                return take(*batch, lr=lr)
            except Exception as error:  # compilers fail in many ways, and none of them is a reason to end a run
                assert self.plain is not None
                self._go_back(f"the network could not be compiled: {type(error).__name__}")
                return self.plain(*batch, lr=lr)

        return guarded

    def _choose(self, seconds: float) -> None:
        assert self.plain is not None
        self.decided = True
        if seconds < self.plain_seconds:
            told = f"{1000 * seconds:.1f} ms a step, {1000 * self.plain_seconds:.1f} before"
            self.step.notes.append(f"the network was compiled: {told}")
        else:
            self._go_back("the compiled network was not faster")

    def _go_back(self, why: str) -> None:
        assert self.plain is not None
        self.decided, self.take, self.step.forward = True, self.plain, self.step.model
        self.step.notes.append(f"steps are taken without compiling: {why}")


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Compile with PyTorch's compiler, which leaves the recording of graphs to us."""
    found: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False)
    return found


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return a clock that waits until the device has done what it was given."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock
