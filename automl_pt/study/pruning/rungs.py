"""The default rule: trials pass rungs; the better part of each rung is promoted, the others are paused, then pruned.

All trials reach the first rung, which is within the first epoch, by a proxy run: it ranks them, and its weights are
discarded (`proxy_run`). From each rung the best `1 / reduction` are promoted, at least `keep`; the last rung is the
last epoch. With many images trials reach the second rung by a longer proxy run as well. With few images there is one
proxy run, longer the fewer images there are; a long run has a further rung in its middle. This is successive halving
(Jamieson and Talwalkar, 2016) with paused trials: trials are ranked after equal epochs, and no epoch runs twice.

Trials from weights that reach the middle of the run are compared once more. The best of two goes on, and with it those
that are within `margin` of it, because only these may still end ahead. One of the two is `trusted`, whatever its proxy
runs say: the study's rival, else trial 0. Short runs favour high learning rates (short-horizon bias, Wu et al., 2018),
and published settings are made for whole runs.

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
from typing import NamedTuple

from automl_pt.study.pruning.base import TrialProgress, Verdict

#: the documented default (`sampler.suggest`), pruned only if it is clearly behind
DEFAULT_TRIAL = 0


class Schedule(NamedTuple):
    """Where the rungs lie for runs of at least `epochs` epochs on at least `images` training images.

    `proxy_runs` are the lengths of the proxy runs, in epochs. `has_middle` adds a rung in the middle of the run. From
    the first rung 1 / `reductions[0]` of the trials go on, from each later one 1 / `reductions[1]`. At least `at_end`
    run to the end.
    """

    images: int
    epochs: int
    proxy_runs: tuple[float, ...]
    has_middle: bool
    reductions: tuple[float, float]
    at_end: int = 2


#: The first row that applies counts. The fewer images an epoch has, the longer the proxy run, because a few steps tell
#: only of the weights that a trial began with and speak against high learning rates that win in the end. From 1,600
#: images on an eighth of an epoch is enough for a first cut. Measured by `benchmarks/search_efficiency.py`.
SCHEDULES = (
    Schedule(1600, 2, (1 / 8, 1 / 2), False, (2.6, 3.0)),
    Schedule(0, 9, (7 / 8,), True, (5.0, 1.5)),
    Schedule(1000, 2, (1 / 2,), False, (7.8, 1.0)),
    Schedule(0, 5, (7 / 8,), False, (7.8, 1.0)),
    Schedule(0, 2, (1 / 2,), False, (7.8, 1.0)),
)

#: The same for trials from weights. A trained network learns from its first steps, so half an epoch is enough of a
#: proxy run. Measured by `benchmarks/transfer.py`.
FROM_WEIGHTS = (
    Schedule(1600, 2, (1 / 8, 1 / 2), True, (2.6, 3.0), at_end=1),
    Schedule(0, 2, (1 / 2,), True, (7.8, 2.0), at_end=1),
)


@dataclass(frozen=True)
class Rungs:
    """Rungs at `rung_resources`, rising numbers of epochs: some may lie within the first, the last is the run's end."""

    rung_resources: tuple[float, ...]
    #: of the first rung, and of all later ones
    reductions: tuple[float, float] = (3.0, 3.0)
    keep: int = 2
    margin: float = 0.03
    #: fewer than `keep`: then those within `margin` of the promoted run to the end as well
    at_end: int = 2
    #: the trial that no proxy run decides about, and that takes one of the places
    trusted: int | None = None

    @staticmethod
    def over(epochs: int, images: int, *, from_weights: bool = False) -> Rungs:
        """Return the rungs for runs of `epochs` epochs on `images` training images, from scratch or from weights.

        A run of one epoch has none, because it is not worth stopping.
        """
        schedules = FROM_WEIGHTS if from_weights else SCHEDULES
        row = next((row for row in schedules if images >= row.images and epochs >= row.epochs), None)
        if row is None:
            return Rungs((epochs,))
        middle = (math.ceil(epochs / 2) if from_weights else epochs // 2,) if row.has_middle else ()
        trusted = DEFAULT_TRIAL if from_weights else None
        return Rungs((*row.proxy_runs, *middle, epochs), row.reductions, at_end=row.at_end, trusted=trusted)

    def next_rung(self, epoch: float) -> float:
        """Return the next rung above `epoch`."""
        return next((level for level in self.rung_resources if level > epoch), self.rung_resources[-1])

    def cohort_size(self, rung: int, trials: int) -> int:
        """Return how many of `trials` reach a rung, counted from 0, by their rank."""
        for cut in range(rung):
            least = self.at_end if cut == len(self.rung_resources) - 2 else self.keep
            trials = min(trials, max(least, int(trials / self.reductions[min(cut, 1)])))
        return trials

    def promoted(self, trials: int) -> int:
        """Return how many of `trials` are promoted past their proxy runs."""
        return self.cohort_size(sum(level < 1 for level in self.rung_resources), trials)

    def verdict(self, number: int, progress_list: Sequence[TrialProgress], total: int) -> Verdict:
        """Promote or prune as soon as no running trial could change the decision."""
        trial = next(trial_progress for trial_progress in progress_list if trial_progress.number == number)
        if trial.epoch not in self.rung_resources[:-1]:
            return "promote"
        rung = self.rung_resources.index(trial.epoch)
        competitors = self._competitors(rung, progress_list, total)
        scores = self._scores(rung, competitors)
        if scores.get(number) == -math.inf:
            return "promote"
        mine = (scores.get(number, trial.rank(trial.epoch)), number)
        better = [other for other, score in scores.items() if (score, other) < mine]
        unknown = self._unknown(rung, competitors, self.cohort_size(rung, total), total - len(progress_list))
        quota = self.cohort_size(rung + 1, total)
        spare = self.keep if self._decides_by_proxy_run(rung) else 0
        is_dropped = len(better) >= quota + spare or mine[0] == math.inf
        has_grace = number == DEFAULT_TRIAL or self._is_close_finish(rung)
        if has_grace and (len(better) >= quota or number not in scores):
            others = sorted(score for other, score in scores.items() if other != number)
            grace = self._grace(mine[0], others[:quota], quota, unknown)
            if grace != "prune" or is_dropped or not spare or number not in scores:
                return grace
        if is_dropped:
            return "prune"
        ahead = [trial_progress for trial_progress in competitors if trial_progress.number in better]
        return self._place(ahead, self.rung_resources[rung + 1], quota, unknown, replaces=spare > 0)

    def _unknown(self, rung: int, competitors: Sequence[TrialProgress], cohort: int, to_come: int) -> int:
        """Return how many of a rung's `cohort` may still arrive; `to_come` trials have not been started."""
        level = self.rung_resources[rung]
        arrived = sum(
            trial_progress.epoch >= level or trial_progress.end == "finished" for trial_progress in competitors
        )
        if rung and self._decides_by_proxy_run(rung - 1):  # others replace those lost, while there are others
            below = sum(trial_progress.end is None and trial_progress.epoch < level for trial_progress in competitors)
            return min(max(0, cohort - arrived), below + to_come)
        below_it = self.rung_resources[rung - 1] if rung else 0
        lost = sum(
            trial_progress.end == "lost" and below_it <= trial_progress.epoch < level for trial_progress in competitors
        )
        return max(0, cohort - arrived - lost)

    def _decides_by_proxy_run(self, rung: int) -> bool:
        """Return whether `rung` is the last one that trials reach by a proxy run, which leaves no weights."""
        return self.rung_resources[rung] < 1 <= self.rung_resources[rung + 1]

    def _is_close_finish(self, rung: int) -> bool:
        """Return whether those within `margin` of the promoted run to the end as well."""
        return self.at_end < self.keep and rung == len(self.rung_resources) - 2

    @staticmethod
    def _place(ahead: Sequence[TrialProgress], level: float, quota: int, unknown: int, *, replaces: bool) -> Verdict:
        """Decide about a trial with `ahead` better ones, at a `quota` for `level`; it may replace lost trials."""
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
        """Decide about a trial with a margin, outside the quota, by the `promoted` scores of at most `quota` others.

        Once the quota is full, further results can only lower these; before that their worst is still unknown.
        """
        is_full = len(promoted) >= quota or not unknown
        if not math.isfinite(score) or (is_full and promoted and score > (1 + self.margin) * promoted[-1]):
            return "prune"
        return "wait" if unknown else "promote"

    def _competitors(self, rung: int, progress_list: Sequence[TrialProgress], total: int) -> list[TrialProgress]:
        """Return the trials that compete at a rung, without the default if it was outside the quota at a lower one."""
        default = next((trial for trial in progress_list if trial.number == DEFAULT_TRIAL), None)
        for lower in range(rung if default is not None else 0):
            assert default is not None
            scores = self._scores(lower, progress_list)
            mine = (scores.get(DEFAULT_TRIAL, -math.inf), DEFAULT_TRIAL)
            if sum((score, other) < mine for other, score in scores.items()) >= self.cohort_size(lower + 1, total):
                return [trial for trial in progress_list if trial.number != DEFAULT_TRIAL]
        return list(progress_list)

    def _scores(self, rung: int, competitors: Sequence[TrialProgress]) -> dict[int, float]:
        """Map the trials known at a rung to their ranking loss there.

        A trial that ended by itself before it counts with its kept weights; one that failed or diverged, as infinitely
        bad. A trial pruned here does not count, because its place is free when the study grows.
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
        if self.trusted is not None and level < 1 and math.isfinite(scores.get(self.trusted, math.inf)):
            scores[self.trusted] = -math.inf
        return scores

    def ranking(self, progress_list: Sequence[TrialProgress]) -> list[int]:
        """Rank by the rung reached first, then by the loss there, because more epochs were a reward for being better.

        The extra epochs of the default trial are not a reward: it is ranked at the rung that it reached within the
        quota.
        """

        def key(trial_progress: TrialProgress) -> tuple[int, float, int]:
            if trial_progress.end == "lost":
                return (1, math.inf, trial_progress.number)
            reached = [level for level in self.rung_resources if _reached(trial_progress, level)]
            if trial_progress.number == DEFAULT_TRIAL:
                reached = self._earned(trial_progress, reached, progress_list)
            loss = trial_progress.rank(reached[-1] if reached else 0)
            return (-len(reached), trial_progress.final(loss), trial_progress.number)

        known = [
            trial_progress
            for trial_progress in progress_list
            if trial_progress.epoch >= self.rung_resources[0] or trial_progress.end
        ]
        return [trial_progress.number for trial_progress in sorted(known, key=key)]

    def _earned(
        self, default: TrialProgress, reached: list[float], progress_list: Sequence[TrialProgress]
    ) -> list[float]:
        """Cut `reached` after the first level from which only trials better than the default were promoted."""
        others = [trial for trial in progress_list if trial.number != DEFAULT_TRIAL]
        for count, level in enumerate(reached[:-1], start=1):
            gone_on = [trial for trial in others if trial.epoch > level or trial.end == "finished"]
            if not any(default.rank(level) <= trial.rank(level) for trial in gone_on):
                return reached[:count]
        return reached

    def expected_epochs(self, progress_list: Sequence[TrialProgress], total: int) -> float:
        """Sum the epochs between the rungs of all trials that will reach them, minus those done or not needed."""
        left, below = 0.0, 0.0
        for rung, level in enumerate(self.rung_resources):
            competitors = self._competitors(rung, progress_list, total)
            entered = [trial for trial in competitors if _entered(trial, below)]
            arrived = sum(trial.epoch >= level or trial.end is not None for trial in entered)
            first = below if below >= 1 else 0.0  # a proxy run is not part of the trial's own epochs
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
        """Return the remaining epochs, between two rungs, of a default trial that does not compete."""
        default = next(trial for trial in progress_list if trial.number == DEFAULT_TRIAL)
        on_its_way = default.end is None and below < default.epoch < level
        return level - default.epoch if on_its_way else 0.0


def _replaced(competitors: Sequence[TrialProgress], below: float) -> int:
    """Count the trials lost after `below` that others can replace."""
    lost = sum(trial.end == "lost" and _entered(trial, below) for trial in competitors)
    return min(lost, sum(trial.end is None and trial.epoch >= below for trial in competitors))


def _reached(trial: TrialProgress, level: float) -> bool:
    return trial.epoch >= level or trial.end == "finished"


def _pruned_at(trial: TrialProgress, level: float) -> bool:
    return trial.end == "pruned" and trial.epoch == level


def _entered(trial: TrialProgress, level: float) -> bool:
    """Return whether a trial was promoted past `level`, or ended by itself before it and keeps its place."""
    waiting_or_dropped = trial.epoch == level and level > 0 and trial.end in (None, "pruned")
    return trial.end == "finished" or (trial.epoch >= level and not waiting_or_dropped)
