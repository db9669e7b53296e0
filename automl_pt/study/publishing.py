"""Publishes the best of all kept weights as the study's model, once, from whichever coordinator finds it."""

from __future__ import annotations

from automl_pt.study.model_store import ModelStore, ranked
from automl_pt.study.records import TrialRecord
from automl_pt.study.store.trials import TrialStore


def publish_best(trial_store: TrialStore, model_store: ModelStore) -> TrialRecord | None:
    """Publish the best model, and return its trial; None if it is published already, or its trial is writing it."""
    with trial_store.allocation_lock():  # another coordinator may have published a better one meanwhile
        busy, published = {trial.number for trial in trial_store.busy()}, trial_store.best()
        for record in ranked(trial_store.models()):
            if record.number not in busy and published != [record.number, record.epochs]:
                model_store.put(record.number)
                trial_store.set_best([record.number, record.epochs])
                return record
            if published is not None and published[0] == record.number:
                return None
    return None
