"""What a pruning rule is: it sees how all trials stand, and says of one of them to go on, to wait or to end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Verdict = Literal["promote", "wait", "prune"]


@dataclass(frozen=True)
class Standing:
    """How far one trial has come. `losses` maps each epoch done to its validation loss.

    `end` is None while it runs or waits; `finished` when it ended by itself (all epochs, patience), `pruned`, or `lost`
    when it failed or diverged.
    """

    number: int
    losses: Mapping[int, float]
    end: Literal["finished", "pruned", "lost"] | None = None

    @property
    def epoch(self) -> int:
        """Return the last epoch done, 0 before the first."""
        return max(self.losses, default=0)

    def best(self, epoch: int) -> float:
        """Return the lowest finite loss up to `epoch`: that of the weights kept so far; infinity when there is none."""
        finite = (loss for step, loss in self.losses.items() if step <= epoch and math.isfinite(loss))
        return min(finite, default=math.inf)


class Rule(Protocol):
    """Decides from the standings alone, so that a restarted coordinator decides the same."""

    def until(self, epoch: int) -> int:
        """Return the next epoch after which a trial that has done `epoch` waits for a verdict."""

    def verdict(self, number: int, standings: Sequence[Standing], total: int) -> Verdict:
        """Say whether trial `number`, waiting, goes on; `total` is how many trials the study will have."""

    def ranking(self, standings: Sequence[Standing]) -> list[int]:
        """Return the numbers of the trials that can be compared, best first: what the sampler learns from."""

    def expected_epochs(self, standings: Sequence[Standing], total: int) -> float:
        """Estimate how many epochs all trials together still have to do."""
