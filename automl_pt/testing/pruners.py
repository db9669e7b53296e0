"""The contract of a pruner: made-up studies come to their end under its rule, with a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

from automl_pt.plugins.isolation import guarded
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.study.pruning.base import Rule, TrialProgress, Verdict
from automl_pt.study.pruning.optuna_rules import OptunaRule, make_rule, study_in_memory
from automl_pt.testing.contract import expect, no_network

TRIALS = 8
#: epochs and training images of the runs
SHAPES = ((1, 100), (5, 900), (5, 5000), (12, 900))
LOOK = "the methods of automl_pt.PruningRule"


def check_pruner(name: str, *, plugins: Plugins | None = None) -> dict[tuple[int, int], list[str]]:
    """Run made-up studies under the rules of the pruner called `name`; return how their trials ended, from scratch.

    It is looked up as `--pruner` does it. In each study one trial diverges, one has the same losses as another, and the
    others differ. Raises PluginError for a rule that gives another answer when it is asked again, an answer that no
    search can use, or none that brings a study to its end with a finished trial; UnknownNameError where no pruner has
    that name.
    """
    found = plugins or load_plugins()
    with no_network():
        for shape in SHAPES:
            _study(name, found, *shape, from_weights=True)
        return {shape: _study(name, found, *shape) for shape in SHAPES}


def _study(name: str, plugins: Plugins, epochs: int, images: int, *, from_weights: bool = False) -> list[str]:
    study = _Study(epochs)
    with guarded() as changed:
        rule = make_rule(name, epochs, images, lambda: study.optuna, plugins, from_weights=from_weights)
        came = f"{name}: {epochs} epochs, {images} images" + (", from weights" if from_weights else "")
        for _ in range(TRIALS * (epochs + len(rule.rung_resources) + 2)):
            if not study.step(rule, name):
                break
        progress_list = study.progress_list()
        ends: list[str] = [trial_progress.end or "waiting" for trial_progress in progress_list]
        rule_left = rule.expected_epochs(progress_list, TRIALS)
    expect("waiting" not in ends, "a rule lets every trial go on or ends it", came=f"{came}: {ends}", look=LOOK)
    expect("finished" in ends, "a rule lets at least one trial finish", came=f"{came}: {ends}", look=LOOK)
    expect(rule_left == 0, "nothing is left to do at the end", came=f"{came}: {rule_left} epochs", look=LOOK)
    expect(not changed, "a rule changes no state of the process", came=f"{came}: {', '.join(changed)}", look=LOOK)
    return ends


class _Study:
    """Trials with made-up losses, which continue from point to point as a rule says."""

    def __init__(self, epochs: int) -> None:
        self.optuna = study_in_memory()
        self.trials = [self.optuna.ask() for _ in range(TRIALS)]
        self.epochs = epochs
        self.losses: list[dict[int, float]] = [{} for _ in range(TRIALS)]
        self.ranks: list[dict[float, float]] = [{} for _ in range(TRIALS)]
        self.ends: list[str | None] = [None] * TRIALS

    def trial_progress(self, number: int) -> TrialProgress:
        end = self.ends[number]
        return TrialProgress(number, dict(self.losses[number]), end, dict(self.ranks[number]))  # type: ignore[arg-type]  # one of the three

    def progress_list(self) -> list[TrialProgress]:
        return [self.trial_progress(number) for number in range(TRIALS)]

    def step(self, rule: Rule, name: str) -> bool:
        """Ask the rule of every trial, and let those that may do so go on; say whether anything changed."""
        moved = False
        for number in (number for number in range(TRIALS) if self.ends[number] is None):
            verdict = self._verdict(rule, name, number)
            if verdict == "prune":
                self.ends[number], moved = "pruned", True
            elif verdict == "promote":
                self._run(number, rule.next_rung(self.trial_progress(number).epoch), rule.rung_resources)
                moved = True
        return moved

    def _verdict(self, rule: Rule, name: str, number: int) -> Verdict:
        if not self.trial_progress(number).epoch:
            return "promote"
        ask: Callable[[], Verdict] = lambda: rule.verdict(number, self.progress_list(), TRIALS)  # noqa: E731  # asked twice
        verdict = ask()
        # Optuna's pruners write down what they were asked, and are asked once
        again = verdict if isinstance(getattr(rule, "rule", rule), OptunaRule) else ask()
        came = f"{name}: of trial {number} first {verdict!r}, then {again!r}"
        expect(verdict == again, "a rule decides the same when it is asked again", came=came, look=LOOK)
        expect(verdict in get_args(Verdict), "a verdict is promote, wait or prune", came=came, look=LOOK)
        ranking = rule.ranking(self.progress_list())
        right = len(set(ranking)) == len(ranking) and set(ranking) <= set(range(TRIALS))
        expect(right, "a rule ranks trials that exist, each once", came=f"{name}: {ranking}", look=LOOK)
        return verdict

    def _run(self, number: int, next_rung: float, rung_resources: tuple[float, ...]) -> None:
        """Train a trial to a point: all of its losses up to there are known then."""
        if next_rung < 1:
            self.ranks[number][next_rung] = self._loss(number, next_rung)
            return
        for epoch in range(len(self.losses[number]) + 1, min(math.floor(next_rung), self.epochs) + 1):
            if number == TRIALS - 1 and epoch == self.epochs:
                self.ends[number] = "lost"
                return
            self.losses[number][epoch] = self._loss(number, epoch)
            self.trials[number].report(self.losses[number][epoch], epoch)
            if epoch in rung_resources:
                self.ranks[number][epoch] = self.losses[number][epoch]
            if epoch == self.epochs:
                self.ends[number] = "finished"

    def _loss(self, number: int, epoch: float) -> float:
        return 1.0 + (number * 3 % 7) / 10 + math.exp(-epoch)
