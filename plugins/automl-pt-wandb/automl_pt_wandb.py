"""Writes the events of automl-pt's runs and studies to Weights & Biases, or to files for `wandb sync`."""

import os
import secrets
from pathlib import Path

from automl_pt import hookimpl

#: where runs are filed if WANDB_PROJECT does not say
PROJECT = "automl-pt"
#: W&B's exit code of a run: 0 is finished, any other failed; the last is that of Ctrl-C
FAILED, STOPPED = 1, 255
#: W&B's runs that are open, by run directory
_open = {}


def folder_of(run):
    """Return the folder whose `wandb` folder holds a run's files: the study's, or the run's own."""
    return Path(run.study_directory or run.directory)


def _identity(run, resumes):
    """Return W&B's name of a run: that of an earlier command where the run resumes, else a new one."""
    path = folder_of(run) / "wandb" / f"{run.name.replace('/', '-')}.id"
    if resumes and path.exists():
        return path.read_text()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(secrets.token_hex(8))
    return path.read_text()


def _init(folder, **options):
    import wandb

    if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.api.api_key:
        raise RuntimeError("no W&B account is known here: run `wandb login`, or set WANDB_MODE=offline")
    settings = wandb.Settings(silent=True, console="off")
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    return wandb.init(project=project, dir=str(folder), reinit="create_new", settings=settings, **options)


@hookimpl
def run_started(event):
    """Open a run, grouped by its study; one that resumes continues the run that an earlier command opened."""
    run = event.run
    if run.directory in _open:  # a trial that was paused
        return
    kind = "run" if run.study is None else "trial"
    identity = _identity(run, event.epochs_done > 0)
    options = {"id": identity, "resume": "allow", "name": run.name, "group": run.study, "job_type": kind}
    _open[run.directory] = _init(folder_of(run), config=dict(event.settings), **options)
    _open[run.directory].define_metric("epoch")
    _open[run.directory].define_metric("*", step_metric="epoch")


@hookimpl
def epoch_finished(event):
    """Write every figure of the epoch; the axis is the epoch, because a resumed run counts its steps anew."""
    _open[event.run.directory].log({"epoch": event.epoch, **event.figures})


@hookimpl
def run_finished(event):
    """Close a run that has ended or was interrupted; that of a trial stays open until the trial ends."""
    found = _open[event.run.directory]
    found.summary["reason"] = event.reason
    if event.reason == "interrupted":
        _open.pop(event.run.directory).finish(exit_code=STOPPED)
    elif event.run.trial is None:
        _open.pop(event.run.directory).finish(exit_code=_code(event.reason))


@hookimpl
def trial_finished(event):
    """Write the trial's state and the validation loss of the weights it kept, and close its run."""
    found = _open.pop(event.run.directory)
    found.summary.update({"state": event.state, "value": event.value, **{f"searched_{k}": v for k, v in _plain(event)}})
    found.finish(exit_code=_code(event.reason))


@hookimpl
def study_finished(event):
    """Write one run on the study: the best trial, its model, and the figures on the test split."""
    for directory in [name for name in _open if Path(name).is_relative_to(event.directory)]:
        _open.pop(directory).finish(exit_code=STOPPED)  # paused when the search was interrupted
    found = _init(event.directory, name=f"{event.study}/result", group=event.study, job_type="study")
    best = {"best_trial": event.best_trial, "value": event.value, "model": event.model, "stopped": event.stopped}
    found.summary.update({**best, **{f"test_{name}": value for name, value in event.test.items()}})
    found.finish()


def _plain(event):
    return ((name, value if isinstance(value, int | float) else str(value)) for name, value in event.params.items())


def _code(reason):
    return FAILED if reason == "diverged" or reason.startswith("failed") else 0
