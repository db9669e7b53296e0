"""Which trial's model is the study's: the best of all weights kept so far, published once, by whoever knows it."""

from __future__ import annotations

from automl_pt.study.model_store import ModelStore, ranked
from automl_pt.study.records import TrialRecord
from automl_pt.study.store.trials import TrialStore


def publish_best(trial_store: TrialStore, model_store: ModelStore) -> TrialRecord | None:
    """Publish the best model, and return its trial; None where it is published, or its trial is writing to it now."""
    with trial_store.allocation_lock():  # others publish, too, and may have found a better one that we do not know of
        busy, published = {trial.number for trial in trial_store.busy()}, trial_store.best()
        for record in ranked(trial_store.models()):
            if record.number not in busy and published != [record.number, record.epochs]:
                model_store.put(record.number)
                trial_store.set_best([record.number, record.epochs])
                return record
            if published is not None and published[0] == record.number:
                return None
    return None
