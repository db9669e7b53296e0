"""What a pruning rule is: it sees how all trials stand, and says of one of them to go on, to wait or to end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

Verdict = Literal["promote", "wait", "prune"]


@dataclass(frozen=True)
class TrialProgress:
    """How far one trial has come. `losses` maps each epoch done to its validation loss; `ranks`, where that differs,
    maps an epoch, or a fraction of the first, to the loss by which trials are compared there.

    `end` is None while it runs or waits; `finished` when it ended by itself (all epochs, patience), `pruned`, or `lost`
    when it failed or diverged.
    """

    number: int
    losses: Mapping[int, float]
    end: Literal["finished", "pruned", "lost"] | None = None
    ranks: Mapping[float, float] = field(default_factory=dict)

    @cached_property  # asked millions of times in a study of hundreds of trials
    def epoch(self) -> float:
        """Return how far the trial is: the last epoch done, or the fraction of the first after which it was ranked."""
        return max((*self.losses, *self.ranks), default=0)

    def best(self, epoch: float) -> float:
        """Return the lowest finite loss up to `epoch`: that of the weights kept so far; infinity when there is none."""
        finite = (loss for step, loss in self.losses.items() if step <= epoch and math.isfinite(loss))
        return min(finite, default=math.inf)

    def rank(self, epoch: float) -> float:
        """Return the loss by which the trial is compared after `epoch`; without one, the best so far."""
        loss = self.ranks.get(epoch)
        return self.best(epoch) if loss is None or not math.isfinite(loss) else loss


class Rule(Protocol):
    """Decides from the standings alone, so that a restarted coordinator decides the same."""

    @property
    def rung_resources(self) -> tuple[float, ...]:
        """Return the epochs after which trials are compared by their `rank`; none where Optuna's pruners decide."""

    def next_rung(self, epoch: float) -> float:
        """Return the first point above `epoch`, in epochs, at which a trial waits for a verdict."""

    def verdict(self, number: int, progress_list: Sequence[TrialProgress], total: int) -> Verdict:
        """Say whether trial `number`, waiting, goes on; `total` is how many trials the study will have."""

    def ranking(self, progress_list: Sequence[TrialProgress]) -> list[int]:
        """Return the numbers of the trials that can be compared, best first: what the sampler learns from."""

    def expected_epochs(self, progress_list: Sequence[TrialProgress], total: int) -> float:
        """Estimate how many epochs all trials together still have to do."""
