"""What a trial is held against: a model that guesses, and the linear probe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from automl_pt.study.events import Event, Notice
from automl_pt.study.records import ProbeRecord, TrialRecord

if TYPE_CHECKING:
    from automl_pt.study.store.trials import TrialStore


def below_floor(trial: TrialRecord, classes: int, probes: Sequence[ProbeRecord]) -> str | None:
    """Say which floor an ended trial does not reach: guessing all of `classes` alike, or the best probe; None: neither.

    `classes` is 0 where their number is not known.
    """
    if trial.number < 0 or trial.value is None or trial.state not in ("COMPLETE", "PRUNED"):
        return None
    if classes > 1 and trial.value >= math.log(classes):
        return f"no better than guessing (ln {classes} = {math.log(classes):.4f})"
    losses = [probe.value for probe in probes if probe.value is not None and probe.failure is None]
    if losses and trial.value > min(losses):
        return f"behind the probe ({min(losses):.4f})"
    return None


def floor_notices(trial_store: TrialStore, number: int) -> Iterator[Event]:
    """Say of a trial that has run to its end that a model without any fine-tuning is no worse."""
    trial = next(record for record in trial_store.records() if record.number == number)
    if trial.state == "COMPLETE":
        found = below_floor(trial, trial_store.about().get("classes", 0), trial_store.probes())
        if found is not None:
            yield Notice(f"trial {number} ends {found}")
