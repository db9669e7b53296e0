"""From a registered pruner to the rule of a search: Optuna's pruners as rules, and other plugins' rules watched."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

import optuna
from optuna.pruners import BasePruner

from automl_pt.core.errors import PluginError
from automl_pt.plugins.manager import Plugins
from automl_pt.plugins.pruners import Pruner
from automl_pt.study.pruning.base import PruningRule, Rule, TrialProgress, Verdict
from automl_pt.study.quiet import quiet

T = TypeVar("T")
METHODS = ("next_rung", "verdict", "ranking", "expected_epochs")


def make_rule(
    name: str,
    epochs: int,
    images: int,
    study: Callable[[], optuna.Study],
    plugins: Plugins,
    *,
    from_weights: bool = False,
) -> Rule:
    """Return the rule of the pruner called `name` for runs of `epochs` on so many training `images`.

    Raises UnknownNameError with near names, PluginError for a pruner that makes no rule.
    """
    pruner = plugins.named(Pruner, name)
    with plugins.running(plugins.of_kind(Pruner), name):
        make = pruner.make_from_weights if from_weights and pruner.make_from_weights else pruner.make
        made: Any = make(epochs, images)
    if isinstance(made, BasePruner):
        made = OptunaRule(epochs, pruner=made, study=study)
    missing = [method for method in METHODS if not callable(getattr(made, method, None))]
    if missing or not isinstance(getattr(made, "rung_resources", None), tuple):
        owner = plugins.owner_label(plugins.of_kind(Pruner), name)
        raise PluginError(
            f"the pruner {name} makes no rule",
            given=f"{owner}: {made!r} without {', '.join(missing or ['rung_resources'])}",
            remedy="return a pruner of Optuna's, or a rule that inherits from automl_pt.PruningRule",
        )
    rule: Rule = made
    return rule if plugins.is_own(plugins.of_kind(Pruner), name) else WatchedRule(name, rule, plugins)


def study_in_memory() -> optuna.Study:
    """Return an empty study that nothing keeps."""
    with quiet():
        return optuna.create_study()


@dataclass
class OptunaRule(PruningRule):
    """Asks an Optuna pruner after every epoch; trials are never paused."""

    epochs: int
    pruner: BasePruner = field(kw_only=True)
    study: Callable[[], optuna.Study] = field(kw_only=True)
    _study: optuna.Study | None = field(default=None, repr=False)

    def next_rung(self, epoch: float) -> float:
        """Return the next epoch, or the end where nothing is ever pruned."""
        return self.epochs if isinstance(self.pruner, optuna.pruners.NopPruner) else super().next_rung(epoch)

    def verdict(self, number: int, progress_list: Sequence[TrialProgress], total: int) -> Verdict:
        """Ask the pruner about the trial in its stored state."""
        self._study = self._study or self.study()
        trial = self._study.get_trials(deepcopy=False)[number]
        return "prune" if self.pruner.prune(self._study, trial) else "promote"


@dataclass
class WatchedRule:
    """A plugin's rule: what it raises names the plugin, what it changes is restored, and its answers are checked."""

    name: str
    rule: Rule
    plugins: Plugins

    @property
    def rung_resources(self) -> tuple[float, ...]:
        """Return the rule's levels."""
        return self.rule.rung_resources

    @contextmanager
    def _running(self) -> Iterator[None]:
        with self.plugins.running(self.plugins.of_kind(Pruner), self.name):
            yield

    def next_rung(self, epoch: float) -> float:
        """Ask the rule; the next point must lie above `epoch`."""
        with self._running():
            found = self.rule.next_rung(epoch)
        return self._checked(
            found, "next_rung", isinstance(found, int | float) and math.isfinite(found) and found > epoch
        )

    def verdict(self, number: int, progress_list: Sequence[TrialProgress], total: int) -> Verdict:
        """Ask the rule; its answer must be one of the three."""
        with self._running():
            found = self.rule.verdict(number, progress_list, total)
        return self._checked(found, "verdict", found in get_args(Verdict))

    def ranking(self, progress_list: Sequence[TrialProgress]) -> list[int]:
        """Ask the rule; it must rank trials that exist, each once."""
        with self._running():
            found = list(self.rule.ranking(progress_list))
        known = {trial_progress.number for trial_progress in progress_list}
        return self._checked(found, "ranking", len(set(found)) == len(found) and set(found) <= known)

    def expected_epochs(self, progress_list: Sequence[TrialProgress], total: int) -> float:
        """Ask the rule; it must be a number of at least 0."""
        with self._running():
            found = self.rule.expected_epochs(progress_list, total)
        return self._checked(found, "expected_epochs", isinstance(found, int | float) and 0 <= found < math.inf)

    def _checked(self, found: T, method: str, is_right: bool) -> T:
        if is_right:
            return found
        owner = self.plugins.owner_label(self.plugins.of_kind(Pruner), self.name)
        raise PluginError(
            f"the pruner {self.name} gave no answer that a search can use",
            given=f"{owner}: {method} returned {found!r}"[:500],
            remedy="correct the plugin, or resume the study with --pruner none; "
            "`automl_pt.testing.check_pruner` finds the fault",
        )
