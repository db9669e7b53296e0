"""Forward passes over as many images at once as memory lasts for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from automl_pt.core.out_of_memory import is_out_of_memory


@dataclass
class MicroBatch:
    """How many images go through at a time: `at_once`, None for all that come; half as many whenever memory runs out.

    `refused` is the number that was too many first; None as long as memory lasted.
    """

    at_once: int | None = None
    refused: int | None = None

    def __call__(self, forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Return what `forward` gives for `images`, [B, ...], joined from near-equal parts where they are too many."""
        while True:
            count = max(1, min(self.at_once or len(images), len(images)))
            try:
                parts = images.tensor_split(max(1, math.ceil(len(images) / count)))
                return torch.cat([forward(part) for part in parts])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or count == 1:
                    raise
            self._halve(count)

    def _halve(self, count: int) -> None:
        # two threads may run one network, and both run out
        self.at_once, self.refused = min(self.at_once or count, math.ceil(count / 2)), self.refused or count
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # PyTorch's own, without annotations
            torch.cuda.empty_cache()

    @property
    def note(self) -> str | None:
        """Say what a person should know of it; None where memory lasted."""
        if self.refused is None:
            return None
        return f"out of memory with {self.refused} images at once: went on with {self.at_once}"
