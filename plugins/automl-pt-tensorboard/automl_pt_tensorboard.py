"""Writes what automl-pt tells of runs and studies as TensorBoard's event files."""

import os
from pathlib import Path

from automl_pt import hookimpl

#: open writers by run directory
_writers = {}


def folder_of(run):
    """Return where a run's event files go: below the study or run, or below the folder that the environment names."""
    chosen = os.environ.get("AUTOML_PT_TENSORBOARD")
    if chosen:
        return Path(chosen) / run.name
    if run.study is None:
        return Path(run.directory) / "tensorboard"
    return Path(run.study_directory) / "tensorboard" / f"trial-{run.trial}"


def _writer(run, **options):
    from torch.utils.tensorboard import SummaryWriter

    if run.directory not in _writers:
        _writers[run.directory] = SummaryWriter(str(folder_of(run)), **options)
    return _writers[run.directory]


@hookimpl
def run_started(event):
    """Open the run's files; steps that a killed process may have left beyond the epochs done are hidden."""
    _writer(event.run, purge_step=event.epochs_done + 1 if event.epochs_done else None)


@hookimpl
def epoch_finished(event):
    """Write every figure of the epoch, durably enough to be seen at once."""
    writer = _writer(event.run)
    for name, value in event.figures.items():
        writer.add_scalar(name, value, event.epoch)
    writer.flush()


@hookimpl
def run_finished(event):
    """Close the run's files."""
    _writer(event.run).close()
    del _writers[event.run.directory]


@hookimpl
def trial_finished(event):
    """Write the searched settings with what came of them, for the page HPARAMS."""
    if event.value is not None:
        writer = _writer(event.run)
        writer.add_hparams(dict(event.params), {"value": event.value}, run_name=".", global_step=event.epochs)
        writer.close()
        del _writers[event.run.directory]


@hookimpl
def study_finished(event):
    """Write one text on the study, and its figures on the test split."""
    from torch.utils.tensorboard import SummaryWriter

    chosen = os.environ.get("AUTOML_PT_TENSORBOARD")
    folder = Path(chosen) / event.study if chosen else Path(event.directory) / "tensorboard" / "study"
    with SummaryWriter(str(folder)) as writer:
        best = "no trial" if event.best_trial is None else f"trial {event.best_trial}, {dict(event.params)}"
        writer.add_text("best", f"{best}: validation loss {event.value}; ended by: {event.stopped}", event.trials)
        for name, value in event.test.items():
            writer.add_scalar(f"test_{name}", value, event.trials)
