"""The network compiled by PyTorch for full batches, where the settings ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from automl_pt.core.errors import AutomlError
from automl_pt.core.out_of_memory import is_device_lost, is_out_of_memory

if TYPE_CHECKING:
    from automl_pt.training.cuda.graph import Make, TakeStep
    from automl_pt.training.step import Step

Compiler = Callable[[nn.Module], Callable[[Tensor], Tensor]]


class CompiledStep:
    """Runs steps through what `record` returns, full batches with the network compiled.

    The compiler works at the first full batch, in a step that is undone. Batches of another size use the plain
    network, because the compiler would start again for each size. If compiling fails all do, and a note says why.
    """

    def __init__(
        self,
        step: Step,
        batch_size: int,
        record: Callable[[], TakeStep],
        *,
        make: Make | None = None,
        compiler: Compiler | None = None,
    ) -> None:
        self.step, self.batch_size, self.make = step, batch_size, make
        self.compiler, self.take, self.tried = compiler or compiled, record(), False

    def __call__(self, *batch: Tensor, lr: float) -> Tensor:
        """Run a step; return its mean loss."""
        if not self.tried and len(batch[0]) == self.batch_size:
            self.tried = True
            self._compile(batch)
        return self.take(*batch, lr=lr)

    def _compile(self, batch: tuple[Tensor, ...]) -> None:
        step, plain = self.step, self.step.model
        images, labels = self.make(*batch) if self.make is not None else batch
        try:
            fast = self.compiler(plain)
            step.forward = lambda images: fast(images) if len(images) == self.batch_size else plain(images)
            with step.restoring_state():
                step.capturable_step(images, labels)
        except AutomlError:
            raise
        except Exception as error:  # compilers raise many types, none of which may end a run
            if is_device_lost(error):
                raise
            step.forward = plain
            why = "out of memory" if is_out_of_memory(error) else type(error).__name__
            step.notes.append(f"the network is not compiled: {why}")


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Compile with PyTorch's compiler, without its own recording of graphs."""
    found: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False)
    return found
