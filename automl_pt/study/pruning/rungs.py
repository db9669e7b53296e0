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

from automl_pt.study.pruning.base import TrialProgress, Verdict

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
    """Rungs at the given `rung_resources` (epochs, rising; the last is the run's end; some may lie within the first)."""

    rung_resources: tuple[float, ...]
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

    def next_rung(self, epoch: float) -> float:
        """Return the next rung above `epoch`."""
        return next((level for level in self.rung_resources if level > epoch), self.rung_resources[-1])

    def cohort_size(self, rung: int, trials: int) -> int:
        """Return how many of `trials` come to a rung, counted from 0, by being better than others."""
        for cut in range(rung):
            trials = min(trials, max(self.keep, int(trials / self.reductions[min(cut, 1)])))
        return trials

    def verdict(self, number: int, progress_list: Sequence[TrialProgress], total: int) -> Verdict:
        """Promote or prune as soon as no trial still on its way could change that."""
        trial = next(trial_progress for trial_progress in progress_list if trial_progress.number == number)
        if trial.epoch not in self.rung_resources[:-1]:
            return "promote"
        rung = self.rung_resources.index(trial.epoch)
        competitors = self._competitors(rung, progress_list, total)
        scores = self._scores(rung, competitors)
        mine = (trial.rank(trial.epoch), number)
        better = [other for other, score in scores.items() if (score, other) < mine]
        dropped = sum(_pruned_at(trial_progress, trial.epoch) for trial_progress in competitors)
        unknown = max(0, self.cohort_size(rung, total) - len(scores) - dropped)
        quota = self.cohort_size(rung + 1, total)
        if number == DEFAULT_TRIAL and (len(better) >= quota or number not in scores):
            others = sorted(score for other, score in scores.items() if other != number)
            return self._grace(mine[0], others[:quota], quota, unknown)
        spare = self.keep if self._decides_by_proxy_run(rung) else 0
        if len(better) >= quota + spare or not math.isfinite(mine[0]):
            return "prune"
        ahead = [trial_progress for trial_progress in competitors if trial_progress.number in better]
        return self._place(ahead, self.rung_resources[rung + 1], quota, unknown, replaces=spare > 0)

    def _decides_by_proxy_run(self, rung: int) -> bool:
        """Say whether a run in miniature to `rung` decides who goes on to the end."""
        return rung == len(self.rung_resources) - 2 and self.rung_resources[rung] < 1

    @staticmethod
    def _place(ahead: Sequence[TrialProgress], level: float, quota: int, unknown: int, *, replaces: bool) -> Verdict:
        """Judge a trial by those `ahead` of it, of whom `quota` come to `level`; it may replace those lost before."""
        still = [
            trial_progress
            for trial_progress in ahead
            if not (replaces and trial_progress.end == "lost" and trial_progress.epoch < level)
        ]
        if len(still) + unknown < quota:
            return "promote"
        arrived = sum(trial_progress.epoch >= level or trial_progress.end == "finished" for trial_progress in still)
        return "prune" if (arrived if replaces else len(still)) >= quota else "wait"

    def _grace(self, score: float, promoted: Sequence[float], quota: int, unknown: int) -> Verdict:
        """Judge the default trial outside the quota by the `promoted` scores, best first, of at most `quota` others.

        Once there are as many, further results can only lower them; before that the worst of them may still come.
        """
        is_full = len(promoted) >= quota or not unknown
        if not math.isfinite(score) or (is_full and promoted and score > (1 + self.margin) * promoted[-1]):
            return "prune"
        return "wait" if unknown else "promote"

    def _competitors(self, rung: int, progress_list: Sequence[TrialProgress], total: int) -> list[TrialProgress]:
        """Leave out the default trial where it is out of competition: outside the quota at a lower rung."""
        default = next((trial for trial in progress_list if trial.number == DEFAULT_TRIAL), None)
        for lower in range(rung if default is not None else 0):
            assert default is not None
            scores = self._scores(lower, progress_list)
            mine = (scores.get(DEFAULT_TRIAL, -math.inf), DEFAULT_TRIAL)
            if sum((score, other) < mine for other, score in scores.items()) >= self.cohort_size(lower + 1, total):
                return [trial for trial in progress_list if trial.number != DEFAULT_TRIAL]
        return list(progress_list)

    def _scores(self, rung: int, competitors: Sequence[TrialProgress]) -> dict[int, float]:
        """Map the trials known at a rung to the loss they are ranked by there.

        One that ended by itself on the way counts with what it kept; one that failed or diverged, as infinitely bad.
        One pruned here does not count any more: when the study grows, its place is somebody else's.
        """
        level = self.rung_resources[rung]
        below = self.rung_resources[rung - 1] if rung else 0
        scores: dict[int, float] = {}
        for trial_progress in competitors:
            if _pruned_at(trial_progress, level):
                continue
            if trial_progress.epoch >= level or trial_progress.end == "finished":
                scores[trial_progress.number] = trial_progress.rank(level)
            elif trial_progress.end == "lost" and trial_progress.epoch >= below:
                scores[trial_progress.number] = math.inf
        return scores

    def ranking(self, progress_list: Sequence[TrialProgress]) -> list[int]:
        """Rank by the rung reached first, then by the loss there: more epochs were a reward for being better.

        Those that the default trial was given out of competition were none: it is ranked where it came to by merit.
        """

        def key(trial_progress: TrialProgress) -> tuple[int, float, int]:
            if trial_progress.end == "lost":
                return (1, math.inf, trial_progress.number)
            reached = [level for level in self.rung_resources if _reached(trial_progress, level)]
            if trial_progress.number == DEFAULT_TRIAL:
                reached = self._earned(trial_progress, reached, progress_list)
            return (-len(reached), trial_progress.rank(reached[-1] if reached else 0), trial_progress.number)

        known = [
            trial_progress
            for trial_progress in progress_list
            if trial_progress.epoch >= self.rung_resources[0] or trial_progress.end
        ]
        return [trial_progress.number for trial_progress in sorted(known, key=key)]

    def _earned(
        self, default: TrialProgress, reached: list[float], progress_list: Sequence[TrialProgress]
    ) -> list[float]:
        """Cut `reached` after the first level from which only trials better than the default one went on."""
        others = [trial for trial in progress_list if trial.number != DEFAULT_TRIAL]
        for count, level in enumerate(reached[:-1], start=1):
            gone_on = [trial for trial in others if trial.epoch > level or trial.end == "finished"]
            if not any(default.rank(level) <= trial.rank(level) for trial in gone_on):
                return reached[:count]
        return reached

    def expected_epochs(self, progress_list: Sequence[TrialProgress], total: int) -> float:
        """Count the epochs between the rungs for all who will come there, less those that are done or not needed."""
        left, below = 0.0, 0.0
        for rung, level in enumerate(self.rung_resources):
            competitors = self._competitors(rung, progress_list, total)
            entered = [trial for trial in competitors if _entered(trial, below)]
            arrived = sum(trial.epoch >= level or trial.end is not None for trial in entered)
            first = below if below >= 1 else 0.0  # a run in miniature is none of the trial's own epochs
            under_way = [trial.epoch for trial in entered if trial.epoch < level and trial.end is None]
            on_the_way = sum(epoch - first for epoch in under_way if epoch >= 1)
            if rung and self._decides_by_proxy_run(rung - 1):
                arrived -= _replaced(competitors, below)
            left += max(0, self.cohort_size(rung, total) - arrived) * (level - first) - on_the_way
            if len(competitors) < len(progress_list):
                left += self._default_epochs_left(progress_list, below, level)
            below = level
        return max(0.0, left)

    def _default_epochs_left(self, progress_list: Sequence[TrialProgress], below: float, level: float) -> float:
        """Return the epochs that the default trial, out of competition, still has to do between two rungs."""
        default = next(trial for trial in progress_list if trial.number == DEFAULT_TRIAL)
        on_its_way = default.end is None and below < default.epoch < level
        return level - default.epoch if on_its_way else 0.0


def _replaced(competitors: Sequence[TrialProgress], below: float) -> int:
    """Count the trials lost after `below` in whose places there are others to go."""
    lost = sum(trial.end == "lost" and _entered(trial, below) for trial in competitors)
    return min(lost, sum(trial.end is None and trial.epoch >= below for trial in competitors))


def _reached(trial: TrialProgress, level: float) -> bool:
    return trial.epoch >= level or trial.end == "finished"


def _pruned_at(trial: TrialProgress, level: float) -> bool:
    return trial.end == "pruned" and trial.epoch == level


def _entered(trial: TrialProgress, level: float) -> bool:
    """Say whether a trial was let past `level`, or ended by itself before it, its place kept."""
    waiting_or_dropped = trial.epoch == level and level > 0 and trial.end in (None, "pruned")
    return trial.end == "finished" or (trial.epoch >= level and not waiting_or_dropped)
