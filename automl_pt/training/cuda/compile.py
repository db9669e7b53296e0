"""Decides whether compiling the network pays within a run, by timing steps before and after.

Compiling costs tens of seconds and saves an unknown share of a step's time. So it starts only if a hoped-for saving
over the remaining steps would exceed its usual cost, and the compiled network is kept only if it is faster. This
applies to CUDA only, because on CPUs 35 to 200 s of compiling changed the speed by 3 % in either direction.
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

#: hoped-for share of a step's time that compiling saves, and its usual seconds; assumptions, not measured on any
#: GPU
GAIN, COST = 0.2, 60.0
#: steps before the timing (recording, choice of kernels), and timed steps
WARM_UP, TIMED = 5, 20

Compiler = Callable[[nn.Module], Callable[[Tensor], Tensor]]


def pays(step_seconds: float, steps_left: int) -> bool:
    """Return whether compiling can be expected to pay in the remaining steps."""
    return step_seconds * steps_left * GAIN > COST


class CompiledWhenItPays:
    """Runs steps through what `record` makes of `step`, and compiles the network meanwhile if that pays.

    `steps_left` returns the run's remaining steps; `clock` returns seconds, after waiting for the device. Only
    batches of `batch_size` are timed. The decision is recorded in the step's notes.
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
        """Run a step; return its mean loss."""
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
        """Return to plain steps if the compiler, which works in the first step, fails."""

        def guarded(*batch: Tensor, lr: float) -> Tensor:
            try:
                return take(*batch, lr=lr)
            except Exception as error:  # compilers raise many types, none of which may end a run
                assert self.plain is not None
                self._go_back(f"the network could not be compiled: {type(error).__name__}")
                return self.plain(*batch, lr=lr)

        return guarded

    def _choose(self, seconds: float) -> None:
        assert self.plain is not None
        self.decided = True
        if seconds < self.plain_seconds:
            timing = f"{1000 * seconds:.1f} ms a step, {1000 * self.plain_seconds:.1f} before"
            self.step.notes.append(f"the network was compiled: {timing}")
        else:
            self._go_back("the compiled network was not faster")

    def _go_back(self, why: str) -> None:
        assert self.plain is not None
        self.decided, self.take, self.step.forward = True, self.plain, self.step.model
        self.step.notes.append(f"steps run without compiling: {why}")


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Compile with PyTorch's compiler, without its own recording of graphs."""
    found: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False)
    return found


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return a clock that first waits until the device has finished its work."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock
