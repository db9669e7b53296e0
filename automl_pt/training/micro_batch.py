"""Runs forward passes over as many images at once as fit into memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from automl_pt.core.out_of_memory import is_out_of_memory


@dataclass
class MicroBatch:
    """The number of images at a time: `at_once`, None for all; half as many whenever memory runs out.

    `refused` is the number that was too many first; None if memory sufficed.
    """

    at_once: int | None = None
    refused: int | None = None

    def __call__(self, forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Return `forward` of `images`, [B, ...], concatenated from near-equal parts if they are too many at once."""
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
        # two threads may run one network and run out of memory together
        self.at_once, self.refused = min(self.at_once or count, math.ceil(count / 2)), self.refused or count
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # PyTorch's own, without annotations
            torch.cuda.empty_cache()

    @property
    def note(self) -> str | None:
        """Return a note for the user; None if memory sufficed."""
        if self.refused is None:
            return None
        return f"out of memory with {self.refused} images at once; continued with {self.at_once}"
