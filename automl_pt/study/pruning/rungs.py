"""The default rule: trials climb rungs, the better part of each rung goes on, the others are paused, then dropped.

All trials run to the first rung. Of those that come to a rung, the best `1 / reduction`, and at least `keep`, go on to
the next; the last rung is the last epoch. It is successive halving (Jamieson and Talwalkar, 2016) with paused trials:
nobody is ranked against trials that have had more epochs, and no epoch is run twice.

A verdict is given as soon as it is certain, whatever the trials still under way will bring: a trial is promoted when
it stays within the quota even if all of those beat it, and dropped when the quota is full of better ones. So workers
seldom wait for each other, and the outcome does not depend on who was first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from automl_pt.study.pruning.base import Standing, Verdict


@dataclass(frozen=True)
class Rungs:
    """Rungs at the given `levels` (epochs, rising; the last is the run's end)."""

    levels: tuple[int, ...]
    reduction: float = 3.0
    keep: int = 2

    @staticmethod
    def over(epochs: int, *, reduction: float = 3.0, keep: int = 2, first: int = 1) -> Rungs:
        """Place the rungs for runs of `epochs`: downwards from the end by `reduction`, not below epoch `first`."""
        levels, level = [epochs], epochs / reduction
        while round(level) > first:
            levels.append(round(level))
            level /= reduction
        return Rungs(tuple(sorted({min(first, epochs), *levels})), reduction, keep)

    def until(self, epoch: int) -> int:
        """Return the next rung above `epoch`."""
        return next((level for level in self.levels if level > epoch), self.levels[-1])

    def entrants(self, rung: int, total: int) -> int:
        """Return how many of `total` trials come to a rung, counted from 0."""
        for _ in range(rung):
            total = min(total, max(self.keep, int(total / self.reduction)))
        return total

    def verdict(self, number: int, standings: Sequence[Standing], total: int) -> Verdict:
        """Promote or prune as soon as no trial still on its way could change that."""
        trial = next(standing for standing in standings if standing.number == number)
        if trial.epoch not in self.levels[:-1]:
            return "promote"
        rung = self.levels.index(trial.epoch)
        scores = self._scores(rung, standings)
        mine = (scores[number], number)
        better = sum((score, other) < mine for other, score in scores.items())
        dropped = sum(_dropped_at(standing, trial.epoch) for standing in standings)
        unknown = max(0, self.entrants(rung, total) - len(scores) - dropped)
        quota = self.entrants(rung + 1, total)
        if better >= quota or not math.isfinite(mine[0]):
            return "prune"
        return "promote" if better + unknown < quota else "wait"

    def _scores(self, rung: int, standings: Sequence[Standing]) -> dict[int, float]:
        """Map the trials known at a rung to the loss they are ranked by there.

        One that ended by itself on the way counts with what it kept; one that failed or diverged, as infinitely bad.
        One pruned here does not count any more: when the study grows, its place is somebody else's.
        """
        level = self.levels[rung]
        below = self.levels[rung - 1] if rung else 0
        scores: dict[int, float] = {}
        for standing in standings:
            if _dropped_at(standing, level):
                continue
            if standing.epoch >= level or standing.end == "finished":
                scores[standing.number] = standing.rank(level)
            elif standing.end == "lost" and standing.epoch >= below:
                scores[standing.number] = math.inf
        return scores

    def ranking(self, standings: Sequence[Standing]) -> list[int]:
        """Rank by the rung reached first, then by the loss there: more epochs were a reward for being better."""

        def key(standing: Standing) -> tuple[int, float, int]:
            if standing.end == "lost":
                return (1, math.inf, standing.number)
            reached = [level for level in self.levels if level <= standing.epoch or standing.end == "finished"]
            return (-len(reached), standing.rank(reached[-1] if reached else 0), standing.number)

        known = [standing for standing in standings if standing.epoch >= self.levels[0] or standing.end]
        return [standing.number for standing in sorted(known, key=key)]

    def expected_epochs(self, standings: Sequence[Standing], total: int) -> float:
        """Count the epochs between the rungs for all who will come there, less those that are done or not needed."""
        left, below = 0.0, 0
        for rung, level in enumerate(self.levels):
            entered = [trial for trial in standings if _entered(trial, below)]
            arrived = sum(trial.epoch >= level or trial.end is not None for trial in entered)
            on_the_way = sum(trial.epoch - below for trial in entered if trial.epoch < level and trial.end is None)
            left += max(0, self.entrants(rung, total) - arrived) * (level - below) - on_the_way
            below = level
        return max(0.0, left)


def _dropped_at(trial: Standing, level: int) -> bool:
    return trial.end == "pruned" and trial.epoch == level


def _entered(trial: Standing, level: int) -> bool:
    """Say whether a trial was let past `level`, or ended by itself before it, its place kept."""
    waiting_or_dropped = trial.epoch == level and level > 0 and trial.end in (None, "pruned")
    return trial.end == "finished" or (trial.epoch >= level and not waiting_or_dropped)
