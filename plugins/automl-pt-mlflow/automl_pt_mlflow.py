"""Writes what automl-pt tells of runs and studies to an MLflow tracking store."""

import time

from automl_pt import hookimpl

#: where a single run is filed
EXPERIMENT = "automl-pt"
DIRECTORY, STATE = "automl_pt.directory", "automl_pt.reason"
#: MLflow's identity of each run that is open, by run directory
_open = {}


def _client():
    from mlflow import MlflowClient

    return MlflowClient()  # where it writes is said by MLFLOW_TRACKING_URI


def _experiment(client, name):
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)


def _metrics(figures, step):
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(name, float(value), now, step) for name, value in figures.items()]


def _params(values):
    from mlflow.entities import Param

    return [Param(name, str(value)) for name, value in values.items()]


@hookimpl
def run_started(event):
    """Open a run in the study's experiment, or the one that an earlier command opened for the same directory."""
    client, run = _client(), event.run
    experiment = _experiment(client, run.study or EXPERIMENT)
    same = "tags.`{}` = '{}'".format(DIRECTORY, run.directory.replace("'", ""))
    found = client.search_runs([experiment], same, max_results=1) if event.epochs_done else []
    if found:
        _open[run.directory] = found[0].info.run_id
        client.update_run(_open[run.directory], "RUNNING")
        return
    tags = {DIRECTORY: run.directory.replace("'", ""), "mlflow.runName": run.name}
    _open[run.directory] = client.create_run(experiment, tags=tags).info.run_id
    client.log_batch(_open[run.directory], params=_params(event.settings))


@hookimpl
def epoch_finished(event):
    """Write every figure of the epoch; its step is the epoch."""
    _client().log_batch(_open[event.run.directory], metrics=_metrics(event.figures, event.epoch))


@hookimpl
def run_finished(event):
    """Write why the run ended; MLflow shows it as finished, failed, or killed where it may still go on."""
    client, key = _client(), _open[event.run.directory]
    client.set_tag(key, STATE, event.reason)
    status = {"interrupted": "KILLED", "paused": "KILLED", "diverged": "FAILED"}.get(event.reason, "FINISHED")
    client.set_terminated(key, "FAILED" if event.reason.startswith("failed") else status)
    if event.run.trial is None:
        del _open[event.run.directory]


@hookimpl
def trial_finished(event):
    """Write the trial's state and the validation loss of the weights it kept."""
    client, key = _client(), _open.pop(event.run.directory)
    client.set_tag(key, "automl_pt.state", event.state)
    if event.value is not None:
        client.log_batch(key, metrics=_metrics({"value": event.value}, event.epochs))


@hookimpl
def study_finished(event):
    """Tag the study's experiment with the best trial, its model, and the figures on the test split."""
    client = _client()
    experiment = _experiment(client, event.study)
    found = {"best_trial": event.best_trial, "value": event.value, "model": event.model, "stopped": event.stopped}
    for name, value in {**found, **{f"test_{name}": value for name, value in event.test.items()}}.items():
        client.set_experiment_tag(experiment, f"automl_pt.{name}", str(value))
