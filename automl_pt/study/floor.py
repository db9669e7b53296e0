"""Compares a trial with two floors: a model that guesses, and the linear probe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from automl_pt.study.events import Event, Notice
from automl_pt.study.records import ProbeRecord, TrialRecord

if TYPE_CHECKING:
    from automl_pt.study.store.trials import TrialStore


def below_floor(trial: TrialRecord, classes: int, probes: Sequence[ProbeRecord]) -> str | None:
    """Return the floor that an ended trial does not reach: uniform guessing over `classes`, or the best probe; or None.

    `classes` is 0 if their number is unknown.
    """
    if trial.number < 0 or trial.value is None or trial.state not in ("COMPLETE", "PRUNED"):
        return None
    by_loss = trial.cost == trial.value
    if by_loss and classes > 1 and trial.value >= math.log(classes):
        return f"no better than guessing (ln {classes} = {math.log(classes):.4f})"
    costs = [probe.as_trial().cost for probe in probes if probe.value is not None and probe.failure is None]
    best = min((cost for cost in costs if cost is not None), default=math.inf)
    if trial.cost is None or trial.cost <= best:
        return None
    return f"behind the probe ({best:.4f})" if by_loss else "behind the probe by the objective"


def floor_notices(trial_store: TrialStore, number: int) -> Iterator[Event]:
    """Report a completed trial that is no better than a floor."""
    trial = next(record for record in trial_store.records() if record.number == number)
    if trial.state == "COMPLETE":
        found = below_floor(trial, trial_store.about().get("classes", 0), trial_store.probes())
        if found is not None:
            yield Notice(f"trial {number} ends {found}")
