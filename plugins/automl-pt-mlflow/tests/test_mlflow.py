import math
from collections import defaultdict

import pytest
from mlflow import MlflowClient

from automl_pt import train
from automl_pt.testing import check_tracker
from automl_pt.tracker_events import EpochFinished


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return MlflowClient()


def runs(client, experiment):
    found = client.get_experiment_by_name(experiment)
    return found, {run.info.run_name: run for run in client.search_runs([found.experiment_id])}


def test_it_keeps_the_contract_and_what_it_was_told_can_be_read_back(client, tmp_path):
    told = check_tracker("mlflow", tmp_path)
    experiment, trials = runs(client, "s")
    _, singles = runs(client, "automl-pt")
    assert sorted(trials) == ["s/trial-0", "s/trial-1"]
    assert sorted(singles) == ["first", "zweiter Lauf \N{SNOWMAN}"]
    wanted = defaultdict(list)
    for event in told:
        if isinstance(event, EpochFinished):
            wanted[event.run.name].append((event.epoch, event.figures["val_loss"]))
    for name, epochs in wanted.items():
        run = {**trials, **singles}[name]
        found = [(item.step, item.value) for item in client.get_metric_history(run.info.run_id, "val_loss")]
        assert len(found) == len(epochs)
        for (step, value), (epoch, loss) in zip(found, epochs, strict=True):
            assert step == epoch
            assert value == loss or math.isnan(loss)
    assert [trials[name].info.status for name in sorted(trials)] == ["FINISHED", "FINISHED"]
    assert singles["first"].info.status == "FINISHED"
    assert singles["zweiter Lauf \N{SNOWMAN}"].info.status == "FAILED"
    assert trials["s/trial-0"].data.metrics["value"] == 0.25
    assert trials["s/trial-0"].data.params["batch_size"] == "8"
    assert experiment.tags["automl_pt.best_trial"] == "0"
    assert experiment.tags["automl_pt.test_accuracy"] == "0.9"


def test_a_real_run_that_goes_on_is_one_run(client, tmp_path):
    options = {"backbone": "timm/test_resnet", "batch_size": 64, "threads": 1, "trackers": ["mlflow"], "epochs": 2}
    for result in train("digits", output=tmp_path / "one", **options):
        assert result.epoch == 1
        break
    _, found = runs(client, "automl-pt")
    assert found["one"].info.status == "KILLED"
    again = list(train("digits", output=tmp_path / "one", **options))
    assert [result.epoch for result in again] == [2]
    _, found = runs(client, "automl-pt")
    assert found["one"].info.status == "FINISHED"
    steps = [item.step for item in client.get_metric_history(found["one"].info.run_id, "val_loss")]
    assert steps == [1, 2]
