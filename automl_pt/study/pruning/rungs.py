"""The default rule: trials pass rungs; the better part of each rung is promoted, the others are paused, then pruned.

All trials reach the first rung, which is within the first epoch, by a proxy run: it ranks them, and its weights are
discarded (`proxy_run`). From each rung the best `1 / reduction` are promoted, at least `keep`; the last rung is the
last epoch. With many images trials reach the second rung by a longer proxy run as well. With few images there is one
proxy run, longer the fewer images there are; a long run has a further rung in its middle. This is successive halving
(Jamieson and Talwalkar, 2016) with paused trials: trials are ranked after equal epochs, and no epoch runs twice.

Trial 0, the documented default, is pruned only if it is clearly behind: outside the quota it still continues, as an
extra trial, while its loss is within `margin` of the worst promoted one's. From there on it does not compete, and
takes no other trial's place. So a search rarely ends worse than its default, at less cost than a full run.

A verdict is given as soon as no running trial can change it: a trial is promoted if it is within the quota even if
all running trials beat it, and pruned once the quota is full of better ones. So workers rarely wait for each other,
and the outcome does not depend on their order.

Trials pruned after proxy runs have no weights, so if all promoted trials failed there would be no model. Where a proxy
run decides which trials are trained to the end, the `keep` best of the others therefore stay paused until the quota
has arrived there, and replace trials that fail or diverge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from automl_pt.study.pruning.base import Standing, Verdict

#: the documented default (`sampler.suggest`), pruned only if it is clearly behind
DEFAULT_TRIAL = 0
#: lengths of proxy runs in epochs. From `MANY` training images the shorter is long enough for a first cut, from `SOME`
#: the longer is long enough to decide. A few steps measure mostly the initial weights, and count against the high
#: learning rates that win in the end
SHORTER, LONGER, LONGEST = 1 / 8, 1 / 2, 7 / 8
MANY, SOME = 1600, 1000
#: epochs from which a run uses the longest proxy run; epochs from which, with few images, it has a rung in its middle
WORTH_LONGEST, LONG = 5, 9
#: reciprocal of the share of promoted trials: from the first rung, from all later rungs
REDUCTIONS_OF_MANY, REDUCTIONS_AT_ONCE, REDUCTIONS_OF_LONG = (2.6, 3.0), (7.8, 1.0), (5.0, 1.5)


@dataclass(frozen=True)
class Rungs:
    """Rungs at the given `levels` (epochs, rising; the last is the run's end; some may be within the first)."""

    levels: tuple[float, ...]
    #: of the first rung, and of all later ones
    reductions: tuple[float, float] = (3.0, 3.0)
    keep: int = 2
    margin: float = 0.03

    @staticmethod
    def over(epochs: int, images: int) -> Rungs:
        """Return the rungs for runs of `epochs` epochs on `images` training images.

        A run of one epoch has none, because stopping it saves too little.
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
        """Return how many of `trials` reach a rung, counted from 0, by their rank."""
        for cut in range(rung):
            trials = min(trials, max(self.keep, int(trials / self.reductions[min(cut, 1)])))
        return trials

    def verdict(self, number: int, standings: Sequence[Standing], total: int) -> Verdict:
        """Promote or prune as soon as no running trial could change the decision."""
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
        """Return whether a proxy run to `rung` decides which trials are trained to the end."""
        return rung == len(self.levels) - 2 and self.levels[rung] < 1

    @staticmethod
    def _place(ahead: Sequence[Standing], level: float, quota: int, unknown: int, *, replaces: bool) -> Verdict:
        """Decide about a trial with `ahead` better ones, at a `quota` for `level`; it may replace lost trials."""
        still = [standing for standing in ahead if not (replaces and standing.end == "lost" and standing.epoch < level)]
        if len(still) + unknown < quota:
            return "promote"
        arrived = sum(standing.epoch >= level or standing.end == "finished" for standing in still)
        return "prune" if (arrived if replaces else len(still)) >= quota else "wait"

    def _excuse(self, score: float, promoted: Sequence[float], quota: int, unknown: int) -> Verdict:
        """Decide about the default trial outside the quota by the `promoted` scores of at most `quota` others.

        Once the quota is full, further results can only lower these; before that their worst is still unknown.
        """
        is_full = len(promoted) >= quota or not unknown
        if not math.isfinite(score) or (is_full and promoted and score > (1 + self.margin) * promoted[-1]):
            return "prune"
        return "wait" if unknown else "promote"

    def _rivals(self, rung: int, standings: Sequence[Standing], total: int) -> list[Standing]:
        """Return the trials that compete at a rung, without the default if it was outside the quota at a lower one."""
        default = next((trial for trial in standings if trial.number == DEFAULT_TRIAL), None)
        for lower in range(rung if default is not None else 0):
            assert default is not None
            scores = self._scores(lower, standings)
            mine = (scores.get(DEFAULT_TRIAL, -math.inf), DEFAULT_TRIAL)
            if sum((score, other) < mine for other, score in scores.items()) >= self.entrants(lower + 1, total):
                return [trial for trial in standings if trial.number != DEFAULT_TRIAL]
        return list(standings)

    def _scores(self, rung: int, rivals: Sequence[Standing]) -> dict[int, float]:
        """Map the trials known at a rung to their ranking loss there.

        A trial that ended by itself before it counts with its kept weights; one that failed or diverged, as infinitely
        bad. A trial pruned here does not count, because its place is free when the study grows.
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
        """Rank by the rung reached first, then by the loss there, because more epochs were a reward for being better.

        The extra epochs of the default trial are not a reward: it is ranked at the rung that it reached within the
        quota.
        """

        def key(standing: Standing) -> tuple[int, float, int]:
            if standing.end == "lost":
                return (1, math.inf, standing.number)
            reached = [level for level in self.levels if _reached(standing, level)]
            if standing.number == DEFAULT_TRIAL:
                reached = self._earned(standing, reached, standings)
            return (-len(reached), standing.rank(reached[-1] if reached else 0), standing.number)

        known = [standing for standing in standings if standing.epoch >= self.levels[0] or standing.end]
        return [standing.number for standing in sorted(known, key=key)]

    def _earned(self, default: Standing, reached: list[float], standings: Sequence[Standing]) -> list[float]:
        """Cut `reached` after the first level from which only trials better than the default were promoted."""
        others = [trial for trial in standings if trial.number != DEFAULT_TRIAL]
        for count, level in enumerate(reached[:-1], start=1):
            gone_on = [trial for trial in others if trial.epoch > level or trial.end == "finished"]
            if not any(default.rank(level) <= trial.rank(level) for trial in gone_on):
                return reached[:count]
        return reached

    def expected_epochs(self, standings: Sequence[Standing], total: int) -> float:
        """Sum the epochs between the rungs of all trials that will reach them, minus those done or not needed."""
        left, below = 0.0, 0.0
        for rung, level in enumerate(self.levels):
            rivals = self._rivals(rung, standings, total)
            entered = [trial for trial in rivals if _entered(trial, below)]
            arrived = sum(trial.epoch >= level or trial.end is not None for trial in entered)
            first = below if below >= 1 else 0.0  # a proxy run is not part of the trial's own epochs
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
        """Return the remaining epochs, between two rungs, of a default trial that does not compete."""
        default = next(trial for trial in standings if trial.number == DEFAULT_TRIAL)
        on_its_way = default.end is None and below < default.epoch < level
        return level - default.epoch if on_its_way else 0.0


def _replaced(rivals: Sequence[Standing], below: float) -> int:
    """Count the trials lost after `below` that others can replace."""
    lost = sum(trial.end == "lost" and _entered(trial, below) for trial in rivals)
    return min(lost, sum(trial.end is None and trial.epoch >= below for trial in rivals))


def _reached(trial: Standing, level: float) -> bool:
    return trial.epoch >= level or trial.end == "finished"


def _dropped_at(trial: Standing, level: float) -> bool:
    return trial.end == "pruned" and trial.epoch == level


def _entered(trial: Standing, level: float) -> bool:
    """Return whether a trial was promoted past `level`, or ended by itself before it and keeps its place."""
    waiting_or_dropped = trial.epoch == level and level > 0 and trial.end in (None, "pruned")
    return trial.end == "finished" or (trial.epoch >= level and not waiting_or_dropped)
