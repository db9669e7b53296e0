"""The default rule: trials climb rungs, the better part of each rung goes on, the others are paused, then dropped.

All trials come to the first rung, which lies within the first epoch, by a run in miniature: it ranks them, and is no
part of them (`engine/probe.py`). From each rung the best `1 / reduction` go on, and always at least `keep`; the last
rung is the last epoch. With many images those who go on from the first rung come to the second by a run in miniature,
too, a longer one. With few there is one run in miniature, the longer the fewer they are; in a long run a rung in the
middle of it follows. It is successive halving (Jamieson and Talwalkar, 2016), with paused trials:
nobody is ranked against trials that have had more epochs, and none of a trial's epochs is run twice.

Trial 0, the documented default, is dropped only when it is clearly behind: outside the quota it still goes on, as one
more, while its loss is within `margin` of the worst that goes on. From there on it is out of competition, and takes
nobody's place. So a search hardly ever ends behind its default, and does not pay a full run to know that.

A verdict is given as soon as it is certain, whatever the trials still under way will bring: a trial is promoted when
it stays within the quota even if all of those beat it, and dropped when the quota is full of better ones. So workers
seldom wait for each other, and the outcome does not depend on who was first.

Trials dropped after runs in miniature alone have no weights: would all that went on fail, there were no model. So where
such a run decides who is trained to the end, the `keep` best of the others wait until the quota has come there, and
take the places of trials that fail or diverge on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from automl_pt.study.pruning.base import Standing, Verdict

#: the documented default (`sampling.suggest`), dropped only when it is clearly behind
DEFAULT_TRIAL = 0
#: the parts of an epoch that runs in miniature take. From `MANY` training images on the shorter tells enough for a
#: first cut, from `SOME` on the longer enough to decide. A few steps tell only of the weights that a trial began with,
#: and against high learning rates that win in the end
SHORTER, LONGER, LONGEST = 1 / 8, 1 / 2, 7 / 8
MANY, SOME = 1600, 1000
#: a run of so many epochs is worth the longest; one of so many, with few images, a rung in its middle besides
WORTH_LONGEST, LONG = 5, 9
#: what share of the trials goes on from a rung, as its reciprocal: from the first, from all after it
REDUCTIONS_OF_MANY, REDUCTIONS_AT_ONCE, REDUCTIONS_OF_LONG = (2.6, 3.0), (7.8, 1.0), (5.0, 1.5)


@dataclass(frozen=True)
class Rungs:
    """Rungs at the given `levels` (epochs, rising; the last is the run's end; some may lie within the first)."""

    levels: tuple[float, ...]
    #: of the first rung, and of those after it
    reductions: tuple[float, float] = (3.0, 3.0)
    keep: int = 2
    margin: float = 0.03

    @staticmethod
    def over(epochs: int, images: int) -> Rungs:
        """Place the rungs for runs of `epochs` on so many training `images`.

        A run of one epoch has none: it is not worth stopping.
        """
        if epochs == 1:
            return Rungs((1,))
        if images >= MANY:
            return Rungs((SHORTER, LONGER, epochs), REDUCTIONS_OF_MANY)
        if epochs >= LONG:
            return Rungs((LONGEST, epochs // 2, epochs), REDUCTIONS_OF_LONG)
        is_long_look = images < SOME and epochs >= WORTH_LONGEST
        return Rungs((LONGEST if is_long_look else LONGER, epochs), REDUCTIONS_AT_ONCE)

    def until(self, epoch: float) -> float:
        """Return the next rung above `epoch`."""
        return next((level for level in self.levels if level > epoch), self.levels[-1])

    def entrants(self, rung: int, trials: int) -> int:
        """Return how many of `trials` come to a rung, counted from 0, by being better than others."""
        for cut in range(rung):
            trials = min(trials, max(self.keep, int(trials / self.reductions[min(cut, 1)])))
        return trials

    def verdict(self, number: int, standings: Sequence[Standing], total: int) -> Verdict:
        """Promote or prune as soon as no trial still on its way could change that."""
        trial = next(standing for standing in standings if standing.number == number)
        if trial.epoch not in self.levels[:-1]:
            return "promote"
        rung = self.levels.index(trial.epoch)
        rivals = self._rivals(rung, standings, total)
        scores = self._scores(rung, rivals)
        mine = (trial.rank(trial.epoch), number)
        better = [other for other, score in scores.items() if (score, other) < mine]
        dropped = sum(_dropped_at(standing, trial.epoch) for standing in rivals)
        unknown = max(0, self.entrants(rung, total) - len(scores) - dropped)
        quota = self.entrants(rung + 1, total)
        if number == DEFAULT_TRIAL and (len(better) >= quota or number not in scores):
            others = sorted(score for other, score in scores.items() if other != number)
            return self._excuse(mine[0], others[:quota], quota, unknown)
        spare = self.keep if self._decides_in_miniature(rung) else 0
        if len(better) >= quota + spare or not math.isfinite(mine[0]):
            return "prune"
        ahead = [standing for standing in rivals if standing.number in better]
        return self._place(ahead, self.levels[rung + 1], quota, unknown, replaces=spare > 0)

    def _decides_in_miniature(self, rung: int) -> bool:
        """Say whether a run in miniature to `rung` decides who goes on to the end."""
        return rung == len(self.levels) - 2 and self.levels[rung] < 1

    @staticmethod
    def _place(ahead: Sequence[Standing], level: float, quota: int, unknown: int, *, replaces: bool) -> Verdict:
        """Judge a trial by those `ahead` of it, of whom `quota` come to `level`; it may replace those lost before."""
        still = [standing for standing in ahead if not (replaces and standing.end == "lost" and standing.epoch < level)]
        if len(still) + unknown < quota:
            return "promote"
        arrived = sum(standing.epoch >= level or standing.end == "finished" for standing in still)
        return "prune" if (arrived if replaces else len(still)) >= quota else "wait"

    def _excuse(self, score: float, promoted: Sequence[float], quota: int, unknown: int) -> Verdict:
        """Judge the default trial outside the quota by the `promoted` scores, best first, of at most `quota` others.

        Once there are as many, further results can only lower them; before that the worst of them may still come.
        """
        is_full = len(promoted) >= quota or not unknown
        if not math.isfinite(score) or (is_full and promoted and score > (1 + self.margin) * promoted[-1]):
            return "prune"
        return "wait" if unknown else "promote"

    def _rivals(self, rung: int, standings: Sequence[Standing], total: int) -> list[Standing]:
        """Leave out the default trial where it is out of competition: outside the quota at a lower rung."""
        default = next((trial for trial in standings if trial.number == DEFAULT_TRIAL), None)
        for lower in range(rung if default is not None else 0):
            assert default is not None
            scores = self._scores(lower, standings)
            mine = (scores.get(DEFAULT_TRIAL, -math.inf), DEFAULT_TRIAL)
            if sum((score, other) < mine for other, score in scores.items()) >= self.entrants(lower + 1, total):
                return [trial for trial in standings if trial.number != DEFAULT_TRIAL]
        return list(standings)

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

        Those that the default trial was given out of competition were none: it is ranked where it came to by merit.
        """

        def key(standing: Standing) -> tuple[int, float, int]:
            if standing.end == "lost":
                return (1, math.inf, standing.number)
            reached = [level for level in self.levels if _reached(standing, level)]
            if standing.number == DEFAULT_TRIAL:
                reached = self._earned(standing, reached, standings)
            loss = standing.rank(reached[-1] if reached else 0)
            return (-len(reached), standing.final(loss), standing.number)

        known = [standing for standing in standings if standing.epoch >= self.levels[0] or standing.end]
        return [standing.number for standing in sorted(known, key=key)]

    def _earned(self, default: Standing, reached: list[float], standings: Sequence[Standing]) -> list[float]:
        """Cut `reached` after the first level from which only trials better than the default one went on."""
        others = [trial for trial in standings if trial.number != DEFAULT_TRIAL]
        for count, level in enumerate(reached[:-1], start=1):
            gone_on = [trial for trial in others if trial.epoch > level or trial.end == "finished"]
            if not any(default.rank(level) <= trial.rank(level) for trial in gone_on):
                return reached[:count]
        return reached

    def expected_epochs(self, standings: Sequence[Standing], total: int) -> float:
        """Count the epochs between the rungs for all who will come there, less those that are done or not needed."""
        left, below = 0.0, 0.0
        for rung, level in enumerate(self.levels):
            rivals = self._rivals(rung, standings, total)
            entered = [trial for trial in rivals if _entered(trial, below)]
            arrived = sum(trial.epoch >= level or trial.end is not None for trial in entered)
            first = below if below >= 1 else 0.0  # a run in miniature is none of the trial's own epochs
            under_way = [trial.epoch for trial in entered if trial.epoch < level and trial.end is None]
            on_the_way = sum(epoch - first for epoch in under_way if epoch >= 1)
            if rung and self._decides_in_miniature(rung - 1):
                arrived -= _replaced(rivals, below)
            left += max(0, self.entrants(rung, total) - arrived) * (level - first) - on_the_way
            if len(rivals) < len(standings):
                left += self._excused(standings, below, level)
            below = level
        return max(0.0, left)

    def _excused(self, standings: Sequence[Standing], below: float, level: float) -> float:
        """Return the epochs that the default trial, out of competition, still has to do between two rungs."""
        default = next(trial for trial in standings if trial.number == DEFAULT_TRIAL)
        on_its_way = default.end is None and below < default.epoch < level
        return level - default.epoch if on_its_way else 0.0


def _replaced(rivals: Sequence[Standing], below: float) -> int:
    """Count the trials lost after `below` in whose places there are others to go."""
    lost = sum(trial.end == "lost" and _entered(trial, below) for trial in rivals)
    return min(lost, sum(trial.end is None and trial.epoch >= below for trial in rivals))


def _reached(trial: Standing, level: float) -> bool:
    return trial.epoch >= level or trial.end == "finished"


def _dropped_at(trial: Standing, level: float) -> bool:
    return trial.end == "pruned" and trial.epoch == level


def _entered(trial: Standing, level: float) -> bool:
    """Say whether a trial was let past `level`, or ended by itself before it, its place kept."""
    waiting_or_dropped = trial.epoch == level and level > 0 and trial.end in (None, "pruned")
    return trial.end == "finished" or (trial.epoch >= level and not waiting_or_dropped)
