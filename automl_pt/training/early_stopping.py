"""Decides when a run stops, and why. Plain Python: a loss goes in, a reason or None comes out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Reason = Literal["completed", "patience", "diverged", "pruned", "interrupted", "failed"]


@dataclass
class EarlyStopping:
    """Count epochs whose validation loss is not lower, in a row; another objective gives a cost in its place.

    With rule "consecutive" an epoch is compared with the previous one; with "best", with the lowest so far, by more
    than `min_delta`. Equal counts as not lower; the first epoch only records, so the earliest stop is after epoch
    `patience + 1`. A loss that is not finite returns "diverged" at once, without changing the counter.
    """

    patience: int
    rule: Literal["consecutive", "best"] = "consecutive"
    min_delta: float = 0.0
    reference: float | None = None
    count: int = 0

    def update(self, val_loss: float) -> Literal["patience", "diverged"] | None:
        """Process the epoch's validation loss; return the reason to stop, or None to continue."""
        if not math.isfinite(val_loss):
            return "diverged"
        lower = self.reference is None or val_loss < self.reference - self.min_delta
        self.count = 0 if lower else self.count + 1
        if self.rule == "consecutive" or lower:
            self.reference = val_loss
        return "patience" if self.count >= self.patience else None
