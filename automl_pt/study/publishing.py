"""Which trial's model is the study's: the best of all weights kept so far, published once, by whoever knows it."""

from __future__ import annotations

from automl_pt.study.model_store import Shelf, ranked
from automl_pt.study.records import TrialRecord
from automl_pt.study.store.trials import Ledger


def publish_best(ledger: Ledger, shelf: Shelf) -> TrialRecord | None:
    """Publish the best model, and return its trial; None where it is published, or its trial is writing to it now."""
    with ledger.turn():  # others publish, too, and may have found a better one that we do not know of
        busy, published = {trial.number for trial in ledger.busy()}, ledger.best()
        for record in ranked(ledger.models()):
            if record.number not in busy and published != [record.number, record.epochs]:
                shelf.put(record.number)
                ledger.set_best([record.number, record.epochs])
                return record
            if published is not None and published[0] == record.number:
                return None
    return None
