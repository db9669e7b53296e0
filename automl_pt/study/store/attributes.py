"""What a trial in Optuna's storage says: whose it is, with what it was made, how far it is, how it ended."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from automl_pt.core.json_reader import parse_json
from automl_pt.study.pruning.base import TrialProgress
from automl_pt.study.records import TrialRecord

OWNER, OUTCOME, RANKS = "owner", "outcome", "ranks"
#: what a trial's runs in miniature took, in seconds, by their length in epochs
PROXY_SECONDS = "probe_seconds"
#: a parameter; and an attribute of the trials whose backbone is not among the choices that Optuna was told first
BACKBONE = "backbone"
NOBODY = ""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, and what it cost."""

    reason: str
    value: float | None
    epochs: int
    seconds: float

    def to_json(self) -> str:
        """Write it as one text, for the storage."""
        return json.dumps([self.reason, self.value, self.epochs, self.seconds])


def is_ours(trial: FrozenTrial) -> bool:
    """Say whether a search has made a trial; any program that knows the storage may add others to the study."""
    return OWNER in trial.user_attrs


def outcome(trial: FrozenTrial) -> Outcome:
    """Return how a trial ended, or what it had given when it was last paused."""
    text = trial.user_attrs.get(OUTCOME)
    if text is None:
        best = TrialProgress(trial.number, losses(trial)).best(trial.last_step or 0)
        seconds = sum(proxy_seconds(trial).values())
        return Outcome("running", best if math.isfinite(best) else None, trial.last_step or 0, seconds)
    return Outcome(*parse_json(text, not_finite=True))


def trial_progress(trial: FrozenTrial) -> TrialProgress:
    """Return how far a trial is."""
    end: Literal["finished", "pruned", "lost"] | None = None
    if trial.state.is_finished():
        lost = trial.state == TrialState.FAIL or outcome(trial).reason == "diverged"
        end = "lost" if lost else "pruned" if trial.state == TrialState.PRUNED else "finished"
    return TrialProgress(trial.number, losses(trial), end, ranks(trial))


def losses(trial: FrozenTrial) -> dict[int, float]:
    """Return a trial's validation losses by epoch; step 0 is none of them."""
    return {step: loss for step, loss in trial.intermediate_values.items() if step > 0}


def ranks(trial: FrozenTrial) -> dict[float, float]:
    """Return the losses by which a trial was compared, by the point at which it was."""
    return {float(epoch): loss for epoch, loss in trial.user_attrs.get(RANKS, {}).items()}


def proxy_seconds(trial: FrozenTrial) -> dict[float, float]:
    """Return what a trial's runs in miniature took, by their length in epochs."""
    found = trial.user_attrs.get(PROXY_SECONDS, {})
    if not isinstance(found, dict):  # an earlier version, with one run in miniature, wrote what that took
        return {0.0: found}
    return {float(epoch): seconds for epoch, seconds in found.items()}


def params_of(trial: FrozenTrial, unnamed: str | None) -> dict[str, Any]:
    """Return a trial's parameters; `unnamed` is the backbone of one that was asked for when there was no other."""
    backbone = trial.params.get(BACKBONE) or trial.user_attrs.get(BACKBONE) or unnamed
    return {**trial.params, **({BACKBONE: backbone} if backbone else {})}


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
    )
