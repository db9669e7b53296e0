"""The default rule: trials climb rungs, the better part of each rung goes on, the others are paused, then dropped.

All trials run to the first rung. Of those that come to a rung, the best `1 / reduction`, and at least `keep`, go on to
the next; the last rung is the last epoch. It is successive halving (Jamieson and Talwalkar, 2016) with paused trials:
nobody is ranked against trials that have had more epochs, and no epoch is run twice.

Trial 0, the documented default, takes no part in that: it is always run in full, so that a search can compare with it
and never ends behind it. It takes nobody's place either: the others climb as in a study without it.

A verdict is given as soon as it is certain, whatever the trials still under way will bring: a trial is promoted when
it stays within the quota even if all of those beat it, and dropped when the quota is full of better ones. So workers
seldom wait for each other, and the outcome does not depend on who was first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from automl_pt.study.pruning.base import Standing, Verdict

#: the trial that runs in full, out of competition: the documented default (`sampling.suggest`)
DEFAULT_TRIAL = 0
#: where the first rung stands, in epochs: with the batch's own statistics trials can be told apart that early
FIRST = 1 / 3


@dataclass(frozen=True)
class Rungs:
    """Rungs at the given `levels` (epochs, rising; the last is the run's end; the first may lie within an epoch)."""

    levels: tuple[float, ...]
    reduction: float = 3.0
    keep: int = 2

    @staticmethod
    def over(epochs: int, *, reduction: float = 3.0, keep: int = 2, first: float = FIRST) -> Rungs:
        """Place the rungs for runs of `epochs`: downwards from the end by `reduction`, above epoch 1, and at `first`.

        A run of one epoch has none: so short a run is not worth stopping.
        """
        levels, level = [float(epochs)], epochs / reduction
        while round(level) > 1:
            levels.append(round(level))
            level /= reduction
        return Rungs(tuple(sorted({first, *levels})) if epochs > 1 else (1,), reduction, keep)

    def until(self, epoch: float) -> float:
        """Return the next rung above `epoch`."""
        return next((level for level in self.levels if level > epoch), self.levels[-1])

    def entrants(self, rung: int, rivals: int) -> int:
        """Return how many of `rivals`, all trials but the default one, come to a rung, counted from 0."""
        for _ in range(rung):
            rivals = min(rivals, max(self.keep, int(rivals / self.reduction)))
        return rivals

    def verdict(self, number: int, standings: Sequence[Standing], total: int) -> Verdict:
        """Promote or prune as soon as no trial still on its way could change that; promote the default trial always."""
        trial = next(standing for standing in standings if standing.number == number)
        if number == DEFAULT_TRIAL or trial.epoch not in self.levels[:-1]:
            return "promote"
        rung, rivals = self.levels.index(trial.epoch), _rivals(standings)
        scores = self._scores(rung, rivals)
        mine = (scores[number], number)
        better = sum((score, other) < mine for other, score in scores.items())
        dropped = sum(_dropped_at(standing, trial.epoch) for standing in rivals)
        unknown = max(0, self.entrants(rung, total - 1) - len(scores) - dropped)
        quota = self.entrants(rung + 1, total - 1)
        if better >= quota or not math.isfinite(mine[0]):
            return "prune"
        return "promote" if better + unknown < quota else "wait"

    def _scores(self, rung: int, rivals: Sequence[Standing]) -> dict[int, float]:
        """Map the trials known at a rung to the loss they are ranked by there.

        One that ended by itself on the way counts with what it kept; one that failed or diverged, as infinitely bad.
        One pruned here does not count any more: when the study grows, its place is somebody else's.
        """
        level = self.levels[rung]
        below = self.levels[rung - 1] if rung else 0
        scores: dict[int, float] = {}
        for standing in rivals:
            if _dropped_at(standing, level):
                continue
            if standing.epoch >= level or standing.end == "finished":
                scores[standing.number] = standing.rank(level)
            elif standing.end == "lost" and standing.epoch >= below:
                scores[standing.number] = math.inf
        return scores

    def ranking(self, standings: Sequence[Standing]) -> list[int]:
        """Rank by the rung reached first, then by the loss there: more epochs were a reward for being better.

        The default trial's epochs were no reward: it is ranked at the rung to which it would have come.
        """

        def key(standing: Standing) -> tuple[int, float, int]:
            if standing.end == "lost":
                return (1, math.inf, standing.number)
            reached = [level for level in self.levels if _reached(standing, level)]
            if standing.number == DEFAULT_TRIAL:
                reached = self._earned(standing, reached, _rivals(standings))
            return (-len(reached), standing.rank(reached[-1] if reached else 0), standing.number)

        known = [standing for standing in standings if standing.epoch >= self.levels[0] or standing.end]
        return [standing.number for standing in sorted(known, key=key)]

    def _earned(self, default: Standing, reached: list[float], rivals: Sequence[Standing]) -> list[float]:
        """Cut `reached` after the first level from which only trials better than the default one went on."""
        for count, level in enumerate(reached[:-1], start=1):
            gone_on = [rival for rival in rivals if rival.epoch > level or rival.end == "finished"]
            if not any(default.rank(level) <= rival.rank(level) for rival in gone_on):
                return reached[:count]
        return reached

    def expected_epochs(self, standings: Sequence[Standing], total: int) -> float:
        """Count the epochs between the rungs for all who will come there, less those that are done or not needed."""
        left, below, rivals = self._default_left(standings), 0.0, _rivals(standings)
        for rung, level in enumerate(self.levels):
            entered = [trial for trial in rivals if _entered(trial, below)]
            arrived = sum(trial.epoch >= level or trial.end is not None for trial in entered)
            on_the_way = sum(trial.epoch - below for trial in entered if trial.epoch < level and trial.end is None)
            left += max(0, self.entrants(rung, total - 1) - arrived) * (level - below) - on_the_way
            below = level
        return max(0.0, left)

    def _default_left(self, standings: Sequence[Standing]) -> float:
        """Return the epochs that the default trial still has to do: all that are left to the end of its run."""
        default = next((trial for trial in standings if trial.number == DEFAULT_TRIAL), Standing(DEFAULT_TRIAL, {}))
        return 0.0 if default.end is not None else self.levels[-1] - default.epoch


def _rivals(standings: Sequence[Standing]) -> list[Standing]:
    """Leave out the default trial."""
    return [standing for standing in standings if standing.number != DEFAULT_TRIAL]


def _reached(trial: Standing, level: float) -> bool:
    return trial.epoch >= level or trial.end == "finished"


def _dropped_at(trial: Standing, level: float) -> bool:
    return trial.end == "pruned" and trial.epoch == level


def _entered(trial: Standing, level: float) -> bool:
    """Say whether a trial was let past `level`, or ended by itself before it, its place kept."""
    waiting_or_dropped = trial.epoch == level and level > 0 and trial.end in (None, "pruned")
    return trial.end == "finished" or (trial.epoch >= level and not waiting_or_dropped)
