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

    `cost` is what the objective makes of a finished trial; None where that is the loss.
    `end` is None while it runs or waits; `finished` when it ended by itself (all epochs, patience), `pruned`, or `lost`
    when it failed or diverged.
    """

    number: int
    losses: Mapping[int, float]
    end: Literal["finished", "pruned", "lost"] | None = None
    ranks: Mapping[float, float] = field(default_factory=dict)
    cost: float | None = None

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

    def final(self, loss: float) -> float:
        """Return what ranks the trial among finished ones: its cost, where the objective is not the loss."""
        return self.cost if self.end == "finished" and self.cost is not None else loss


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
        """Estimate how many epochs all trials together still have to do."""


@dataclass
class PruningRule:
    """A base for rules: trials are compared after every one of the run's `epochs`, and none is ever ended.

    A rule that inherits from it overrides at least `verdict`.
    """

    epochs: int

    @property
    def rung_resources(self) -> tuple[float, ...]:
        """Return no levels: trials are compared by their validation loss alone."""
        return ()

    def next_rung(self, epoch: float) -> float:
        """Return the next epoch."""
        return math.floor(epoch) + 1

    def verdict(self, number: int, progress_list: Sequence[TrialProgress], total: int) -> Verdict:
        """Let every trial go on."""
        return "promote"

    def ranking(self, progress_list: Sequence[TrialProgress]) -> list[int]:
        """Rank by the loss of the weights kept; trials that failed or diverged come last."""
        ended = [trial_progress for trial_progress in progress_list if trial_progress.end or trial_progress.losses]

        def key(trial_progress: TrialProgress) -> tuple[float, int]:
            loss = math.inf if trial_progress.end == "lost" else trial_progress.best(trial_progress.epoch)
            return (trial_progress.final(loss), trial_progress.number)

        return [trial_progress.number for trial_progress in sorted(ended, key=key)]

    def expected_epochs(self, progress_list: Sequence[TrialProgress], total: int) -> float:
        """Count with what ended trials took on average; before the first has ended, with all epochs."""
        ended = [trial_progress.epoch for trial_progress in progress_list if trial_progress.end is not None]
        mean = sum(ended) / len(ended) if ended else self.epochs
        under_way = sum(
            max(0.0, mean - trial_progress.epoch) for trial_progress in progress_list if trial_progress.end is None
        )
        return under_way + mean * max(0, total - len(progress_list))
