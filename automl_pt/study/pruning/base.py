"""The interface of pruning rules: from the progress of all trials, a rule continues, pauses or ends one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

Verdict = Literal["promote", "wait", "prune"]


@dataclass(frozen=True)
class TrialProgress:
    """The progress of one trial. `losses` maps each finished epoch to its validation loss; `ranks`, where that differs,
    maps an epoch, or a fraction of the first, to the ranking loss there.

    `end` is None while it runs or is paused; `finished` if it ended by itself (all epochs, patience), `pruned`, or
    `lost` if it failed or diverged.
    """

    number: int
    losses: Mapping[int, float]
    end: Literal["finished", "pruned", "lost"] | None = None
    ranks: Mapping[float, float] = field(default_factory=dict)

    @cached_property  # read millions of times in a study of hundreds of trials
    def epoch(self) -> float:
        """Return the last finished epoch, or the fraction of the first after which the trial was ranked."""
        return max((*self.losses, *self.ranks), default=0)

    def best(self, epoch: float) -> float:
        """Return the lowest finite loss up to `epoch`, which is that of the kept weights; infinity if there is none."""
        finite = (loss for step, loss in self.losses.items() if step <= epoch and math.isfinite(loss))
        return min(finite, default=math.inf)

    def rank(self, epoch: float) -> float:
        """Return the trial's ranking loss after `epoch`; without one, its lowest loss so far."""
        loss = self.ranks.get(epoch)
        return self.best(epoch) if loss is None or not math.isfinite(loss) else loss


class Rule(Protocol):
    """Decides from the trials' progress alone, so that a restarted coordinator decides the same."""

    @property
    def rung_resources(self) -> tuple[float, ...]:
        """Return the epochs after which trials are compared by their `rank`; empty if Optuna's pruners decide."""

    def next_rung(self, epoch: float) -> float:
        """Return the first point above `epoch`, in epochs, at which a trial pauses for a verdict."""

    def verdict(self, number: int, progress_list: Sequence[TrialProgress], total: int) -> Verdict:
        """Decide whether paused trial `number` continues; `total` is how many trials the study will have."""

    def ranking(self, progress_list: Sequence[TrialProgress]) -> list[int]:
        """Return the numbers of the comparable trials, best first, which the sampler learns from."""

    def expected_epochs(self, progress_list: Sequence[TrialProgress], total: int) -> float:
        """Estimate the remaining epochs of all trials together."""
