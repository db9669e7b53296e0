"""Publishes the best of all kept weights as the study's model, once, from whichever coordinator finds it."""

from __future__ import annotations

from automl_pt.study.model_store import Shelf, ranked
from automl_pt.study.records import TrialRecord
from automl_pt.study.store.trials import Ledger


def publish_best(ledger: Ledger, shelf: Shelf) -> TrialRecord | None:
    """Publish the best model, and return its trial; None if it is published already, or its trial is writing it."""
    with ledger.turn():  # another coordinator may have published a better one meanwhile
        busy, published = {trial.number for trial in ledger.busy()}, ledger.best()
        for record in ranked(ledger.models()):
            if record.number not in busy and published != [record.number, record.epochs]:
                shelf.put(record.number)
                ledger.set_best([record.number, record.epochs])
                return record
            if published is not None and published[0] == record.number:
                return None
    return None
