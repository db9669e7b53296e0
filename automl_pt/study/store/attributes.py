"""Interprets a trial in Optuna's storage: its owner, its parameters, its progress and its end."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from automl_pt.core.json_reader import parse_json
from automl_pt.study.pruning.base import TrialProgress
from automl_pt.study.records import TrialRecord

OWNER, OUTCOME, RANKS = "owner", "outcome", "ranks"
#: duration of a trial's proxy runs in seconds, by their length in epochs
PROXY_SECONDS = "probe_seconds"
#: a parameter; an attribute instead if the backbone is not among the choices that Optuna received first
BACKBONE = "backbone"
#: on what kind of machine it ran last, where an executor says so
MACHINE = "machine"
#: of a rival: the optimiser and its published settings, see `Rival`
RIVAL = "rival"
NOBODY = ""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, and what it took; `metrics` are those of the weights it kept, by name.

    `value` is their validation loss. `cost` is what the objective makes of them, the lower the better; None: the loss.
    """

    reason: str
    value: float | None
    epochs: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    cost: float | None = None

    def to_json(self) -> str:
        """Write it as one text, for the storage."""
        return json.dumps([self.reason, self.value, self.epochs, self.seconds, self.metrics, self.cost])


def is_ours(trial: FrozenTrial) -> bool:
    """Return whether a search created a trial; other programs with access to the storage may add trials."""
    return OWNER in trial.user_attrs


def outcome(trial: FrozenTrial) -> Outcome:
    """Return how a trial ended, or its results when it was last paused."""
    text = trial.user_attrs.get(OUTCOME)
    if text is None:
        best = TrialProgress(trial.number, losses(trial)).best(trial.last_step or 0)
        seconds = sum(proxy_seconds(trial).values())
        return Outcome("running", best if math.isfinite(best) else None, trial.last_step or 0, seconds)
    return _parsed(text)


@lru_cache(maxsize=4096)  # each decision looks at all trials, and their ends do not change
def _parsed(text: str) -> Outcome:
    return Outcome(*parse_json(text, not_finite=True))


def trial_progress(trial: FrozenTrial) -> TrialProgress:
    """Return a trial's progress."""
    end: Literal["finished", "pruned", "lost"] | None = None
    if trial.state.is_finished():
        lost = trial.state == TrialState.FAIL or outcome(trial).reason == "diverged"
        end = "lost" if lost else "pruned" if trial.state == TrialState.PRUNED else "finished"
    cost = outcome(trial).cost if end == "finished" else None
    return TrialProgress(trial.number, losses(trial), end, ranks(trial), cost)


def losses(trial: FrozenTrial) -> dict[int, float]:
    """Return a trial's validation losses by epoch; step 0 is not an epoch."""
    return {step: loss for step, loss in trial.intermediate_values.items() if step > 0}


def ranks(trial: FrozenTrial) -> dict[float, float]:
    """Return a trial's ranking losses, by the point of comparison."""
    return {float(epoch): loss for epoch, loss in trial.user_attrs.get(RANKS, {}).items()}


def proxy_seconds(trial: FrozenTrial) -> dict[float, float]:
    """Return the duration of a trial's proxy runs, by their length in epochs."""
    found = trial.user_attrs.get(PROXY_SECONDS, {})
    if not isinstance(found, dict):  # earlier versions, with one proxy run, stored a number
        return {0.0: found}
    return {float(epoch): seconds for epoch, seconds in found.items()}


def params_of(trial: FrozenTrial, unnamed: str | None) -> dict[str, Any]:
    """Return a trial's parameters; `unnamed` is the backbone of trials created when it was the only one."""
    backbone = trial.params.get(BACKBONE) or trial.user_attrs.get(BACKBONE) or unnamed
    own = rival(trial)
    named = {} if own is None else {"optimizer": own["optimizer"]}
    return {**trial.params, **named, **({BACKBONE: backbone} if backbone else {})}


def rival(trial: FrozenTrial) -> dict[str, Any] | None:
    """Return the settings of a trial that is a rival, its optimiser among them; None for any other trial."""
    found = trial.user_attrs.get(RIVAL)
    return None if found is None else dict(found)


def record(trial: FrozenTrial, unnamed: str | None = None) -> TrialRecord:
    """Return a trial as plain values."""
    ended = outcome(trial)
    under_way = not trial.state.is_finished() and trial.user_attrs.get(OWNER) != NOBODY
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        params=dict(sorted(params_of(trial, unnamed).items())),
        value=ended.value,
        epochs=ended.epochs,
        seconds=ended.seconds,
        reason="running" if under_way else ended.reason,
        losses=dict(sorted(losses(trial).items())),
        ranks=dict(sorted(ranks(trial).items())),
        machine=trial.user_attrs.get(MACHINE),
        metrics=ended.metrics,
        cost=ended.cost if ended.cost is not None else ended.value,
        rival=rival(trial),
    )
