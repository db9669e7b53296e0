"""Optuna's own pruners, and none at all, as rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.pruners import BasePruner

from automl_pt.core.errors import UnknownNameError
from automl_pt.study.pruning.base import Rule, TrialProgress, Verdict
from automl_pt.study.pruning.rungs import Rungs

#: name -> makes the pruner for runs of so many epochs
PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "hyperband": lambda epochs: optuna.pruners.HyperbandPruner(max_resource=epochs),
    "median": lambda epochs: optuna.pruners.MedianPruner(),
    "none": lambda epochs: optuna.pruners.NopPruner(),
    "percentile": lambda epochs: optuna.pruners.PercentilePruner(25.0),
    "successive-halving": lambda epochs: optuna.pruners.SuccessiveHalvingPruner(),
}
NAMES = ("rungs", *sorted(PRUNERS))


def make_rule(name: str, epochs: int, images: int, study: Callable[[], optuna.Study]) -> Rule:
    """Return the rule called `name` for runs of `epochs` on so many training `images`.

    Raises UnknownNameError with near names.
    """
    require_rule(name)
    if name == "rungs":
        return Rungs.over(epochs, images)
    return OptunaRule(PRUNERS[name](epochs), epochs, study)


def require_rule(name: str) -> None:
    """Raise UnknownNameError, with near names, where no rule is called `name`."""
    if name not in NAMES:
        raise UnknownNameError("pruner", name, NAMES, remedy=f"use one of {', '.join(NAMES)}")


@dataclass
class OptunaRule:
    """Asks an Optuna pruner after every epoch; trials are never paused."""

    pruner: BasePruner
    epochs: int
    study: Callable[[], optuna.Study]
    rung_resources: tuple[float, ...] = ()
    _study: optuna.Study | None = field(default=None, repr=False)

    def next_rung(self, epoch: float) -> float:
        """Return the next epoch, or the end where nothing is ever pruned."""
        return self.epochs if isinstance(self.pruner, optuna.pruners.NopPruner) else math.floor(epoch) + 1

    def verdict(self, number: int, progress_list: Sequence[TrialProgress], total: int) -> Verdict:
        """Ask the pruner about the trial as it stands in the storage."""
        self._study = self._study or self.study()
        trial = self._study.get_trials(deepcopy=False)[number]
        return "prune" if self.pruner.prune(self._study, trial) else "promote"

    def ranking(self, progress_list: Sequence[TrialProgress]) -> list[int]:
        """Rank by the loss of the weights kept; trials that failed or diverged come last."""
        ended = [trial_progress for trial_progress in progress_list if trial_progress.end or trial_progress.losses]

        def key(trial_progress: TrialProgress) -> tuple[float, int]:
            return (
                math.inf if trial_progress.end == "lost" else trial_progress.best(trial_progress.epoch),
                trial_progress.number,
            )

        return [trial_progress.number for trial_progress in sorted(ended, key=key)]

    def expected_epochs(self, progress_list: Sequence[TrialProgress], total: int) -> float:
        """Count with what ended trials took on average; before the first has ended, with all epochs."""
        ended = [trial_progress.epoch for trial_progress in progress_list if trial_progress.end is not None]
        mean = sum(ended) / len(ended) if ended else self.epochs
        under_way = sum(
            max(0.0, mean - trial_progress.epoch) for trial_progress in progress_list if trial_progress.end is None
        )
        return under_way + mean * max(0, total - len(progress_list))
