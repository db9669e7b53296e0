"""The objective chooses the kept epoch, the end of a run, and a study's best trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import CliRunner
from tiny_runs import PLUGIN, record, write_plugin

from automl_pt.api.search import steps
from automl_pt.cli import cli
from automl_pt.config import SearchConfig
from automl_pt.core.errors import CheckpointError, ConfigError, StudyError, UnknownNameError
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs import run
from automl_pt.runs.directory import history
from automl_pt.study.events import Finished, NewBest
from automl_pt.study.pruning.base import TrialProgress
from automl_pt.study.pruning.optuna_rules import make_rule
from automl_pt.study.records import TrialRecord, disagreement
from automl_pt.training.result import EpochResult, epochs_disagree

PLAIN: dict[str, Any] = {"backbone": "plain", "epochs": 6, "batch_size": 4, "lr": 0.03, "threads": 1, "device": "cpu"}
#: a metric that is best in the first epoch, where the network is least sure: the opposite of the loss
DOUBT = (
    PLUGIN
    + """
from automl_pt import Metric

@hookimpl
def register_metrics():
    return [Metric("doubt", lambda found: found.losses.mean().item(), format="number")]
"""
)


def doubting(folder: Path) -> str:
    path = folder / "doubt.py"
    path.write_text(DOUBT)
    return str(path)


def test_the_kept_epoch_and_the_end_are_those_of_the_objective(tiny_folder: Path, tmp_path: Path) -> None:
    plugin, output = doubting(tmp_path), tmp_path / "out"
    results = list(run.train(str(tiny_folder), output=output, plugins=plugin, objective="doubt", patience=2, **PLAIN))
    doubts = [result.metrics["doubt"] for result in results]
    assert doubts[0] > doubts[1] > doubts[2]  # else nothing is shown by what follows
    assert [result.is_best for result in results] == [True, False, False]
    assert results[-1].reason == "patience"
    assert [result.cost for result in results] == [-doubt for doubt in doubts]
    assert json.loads((output / "model.json").read_text())["metrics"]["epoch"] == 1
    assert record(output)["plugins"][-1]["name"] == "doubt"
    assert epochs_disagree(results, "doubt") == (
        f"The validation loss is lowest after epoch 3, {doubts[2]:.4f}; epoch 1, kept by doubt, has {doubts[0]:.4f}."
    )


def test_the_loss_is_the_default_and_leaves_records_as_they_were(tiny_folder: Path, tmp_path: Path) -> None:
    plugin = str(write_plugin(tmp_path))
    results = list(run.train(str(tiny_folder), output=tmp_path / "out", plugins=plugin, **PLAIN))
    assert {result.cost for result in results} == {result.averaged for result in results} == {None}
    assert epochs_disagree(results, "val_loss") is None


@pytest.mark.parametrize("objective", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_a_moving_average_is_kept_by_the_objective(tiny_folder: Path, tmp_path: Path, objective: str) -> None:
    plugin, output = str(write_plugin(tmp_path)), tmp_path / "out"
    settings = {**PLAIN, "ema_decay": 0.6, "patience": 9, "objective": objective}
    results = list(run.train(str(tiny_folder), output=output, plugins=plugin, **settings))
    best = -1.0
    for result in results:
        raw, average = (result.values(ema=ema)[objective] for ema in (False, True))
        assert result.averaged == (average > raw)
        assert result.is_best == (max(raw, average) > best)
        best = max(best, raw, average)
    kept = json.loads((output / "model.json").read_text())["metrics"]
    assert kept[f"val_{objective}"] == best


def test_a_run_with_another_objective_is_another_run(tiny_folder: Path, tmp_path: Path) -> None:
    plugin, output = str(write_plugin(tmp_path)), tmp_path / "out"
    list(run.train(str(tiny_folder), output=output, plugins=plugin, **{**PLAIN, "epochs": 1}))
    with pytest.raises(CheckpointError, match="objective was 'val_loss' and is 'accuracy'"):
        list(run.train(str(tiny_folder), output=output, plugins=plugin, objective="accuracy", **{**PLAIN, "epochs": 1}))
    found = record(output)
    del found["config"]["objective"], found["config"]["sampling"]  # as an earlier version wrote it
    (output / "run.json").write_text(json.dumps(found))
    assert list(run.train(str(tiny_folder), output=output, plugins=plugin, **{**PLAIN, "epochs": 1})) == []


@pytest.mark.parametrize(
    ("objective", "kind", "said"),
    [
        ("acuracy", UnknownNameError, "did you mean 'accuracy'"),
        ("loss", UnknownNameError, "did you mean 'val_loss'"),
        ("top5", ConfigError, "top5 cannot be used: there is none for 3 classes"),
        ("broken", ConfigError, "broken cannot be used: ZeroDivisionError"),
    ],
)
def test_an_objective_that_cannot_be_is_refused_before_anything_is_written(
    tiny_folder: Path, tmp_path: Path, objective: str, kind: type[Exception], said: str
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(DOUBT.replace("doubt", "broken").replace("found.losses.mean().item()", "1 / 0"))
    with pytest.raises(kind, match=said):
        list(run.train(str(tiny_folder), output=tmp_path / "out", plugins=str(path), objective=objective, **PLAIN))
    assert not (tmp_path / "out").exists()
    config = searching(tiny_folder, str(path), objective=objective)
    with pytest.raises(kind, match=said):
        list(steps(config, tmp_path / "study"))
    assert not (tmp_path / "study").exists()


def searching(folder: Path, plugin: str, **settings: Any) -> SearchConfig:
    return SearchConfig(
        **{"dataset": str(folder), "backbones": ("plain",), "plugins": (plugin,), "epochs": 3, "trials": 3},
        **{"batch_sizes": (4,), "lr": (0.001, 0.3), "threads": 1, "workers": 0, "device": "cpu", "pruner": "none"},
        **{"report": False, **settings},
    )


def test_a_search_is_won_by_the_objective(tiny_folder: Path, tmp_path: Path, runner: CliRunner) -> None:
    folder, config = tmp_path / "study", searching(tiny_folder, doubting(tmp_path), objective="doubt")
    events = list(steps(config, folder))
    result = next(event.result for event in events if isinstance(event, Finished))
    ended = [trial for trial in result.trials if trial.state == "COMPLETE"]
    best = max(ended, key=lambda trial: trial.metrics["doubt"])
    assert result.best is not None
    assert result.best.number == best.number != min(ended, key=lambda trial: trial.value or 0).number
    assert all(trial.cost == -trial.metrics["doubt"] for trial in ended)
    assert all(event.chosen_by.startswith("doubt ") for event in events if isinstance(event, NewBest))
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{folder}/study.db")
    assert [trial.value for trial in study.trials] == [trial.cost for trial in result.trials]
    for trial in ended:
        kept = [epoch for epoch in history(folder / "trials" / str(trial.number)) if epoch.is_best][-1]
        assert trial.metrics["doubt"] == kept.metrics["doubt"]
    shown = " ".join(runner.invoke(cli, ["report", str(folder)], env={"COLUMNS": "250"}).stdout.split())
    assert f"best: trial {best.number};" in shown
    assert f"chosen: by doubt {best.metrics['doubt']:.4f}" in shown
    assert "The validation loss would have chosen trial" in shown
    page = json.loads(runner.invoke(cli, ["report", str(folder), "--json"]).stdout)["sections"]["answer"]
    assert page["more"][0] == f"Chosen by doubt {best.metrics['doubt']:.4f}."
    assert page["more"][1].startswith("The validation loss would have chosen trial")
    with pytest.raises(StudyError, match="objective was 'doubt' and is 'val_loss'"):
        list(steps(searching(tiny_folder, *config.plugins), folder))


def trial(number: int, value: float, f1: float, losses: dict[int, float] | None = None) -> TrialRecord:
    kept = {"metrics": {"macro_f1": f1}, "cost": -f1}
    return TrialRecord(number, "COMPLETE", {}, value, 2, 1.0, "completed", losses or {1: value}, {}, **kept)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([trial(0, 0.4, 0.9), trial(1, 0.5, 0.8)], []),
        ([trial(0, 0.4, 0.9), trial(1, 0.3, 0.8)], ["trial 1: its loss is 0.3000, and macro_f1 0.8000; trial 0"]),
        ([trial(0, 0.4, 0.9, {1: 0.35, 2: 0.4})], ["the loss is lowest after epoch 1, 0.3500"]),
    ],
)
def test_the_report_says_where_objective_and_loss_disagree(records: list[TrialRecord], said: list[str]) -> None:
    found = disagreement(records, records[0], "macro_f1")
    assert len(found) == len(said)
    assert all(part in text for part, text in zip(said, found, strict=True))
    assert disagreement(records, records[0], "val_loss") == []


@pytest.mark.parametrize("pruner", ["rungs", "none"])
def test_finished_trials_are_ranked_for_the_sampler_by_the_objective(pruner: str) -> None:
    def unused() -> Any:
        raise AssertionError("ranking asks for no study")

    rule = make_rule(pruner, 2, 100_000, unused, load_plugins())
    losses = {number: {1: 0.9 - 0.1 * number, 2: 0.8 - 0.1 * number} for number in range(3)}
    finished = [TrialProgress(number, losses[number], "finished") for number in range(3)]
    assert rule.ranking(finished) == [2, 1, 0]
    by_objective = [TrialProgress(number, losses[number], "finished", {}, -0.9 + 0.1 * number) for number in range(3)]
    assert rule.ranking(by_objective) == [0, 1, 2]


def test_a_record_from_before_objectives_is_judged_by_its_loss() -> None:
    old = TrialRecord(0, "COMPLETE", {}, 0.4, 2, 1.0, "completed", {1: 0.4}).to_dict()
    del old["cost"], old["metrics"]
    assert TrialRecord.from_dict(old).cost == 0.4
    figures = (1, 0.5, 0.5, 0.5, None, 0.1, 1.0, 0.0, 0, 1.0, True)
    assert EpochResult(*figures, ema_val_loss=0.4).keeps_average()
    assert not EpochResult(*figures, ema_val_loss=0.6).keeps_average()
    assert not EpochResult(*figures, ema_val_loss=0.4).keeps_average("last")
