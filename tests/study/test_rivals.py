"""Rivals: published settings that compete untuned, and what the report says that the search gained over them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from toy_trial import TOY

from automl_pt.api.classifier_objective import best_settings
from automl_pt.api.search import steps
from automl_pt.cli.report import command as report_command
from automl_pt.cli.search_lines import describe, result_lines
from automl_pt.config import SearchConfig, make
from automl_pt.core.errors import ConfigError, UnknownNameError
from automl_pt.plugins.manager import load_plugins
from automl_pt.reporting.sections.answer import study_answer
from automl_pt.reporting.sections.space import space_section
from automl_pt.reporting.study import read_study
from automl_pt.study import events
from automl_pt.study.records import Gain, StudyResult, TrialRecord
from automl_pt.study.rivals import best_unsearched, gain_over, make_rivals
from automl_pt.study.space.space import make_space, optimizer_spaces

PLUGINS = load_plugins()


def config(**given: Any) -> SearchConfig:
    return make(SearchConfig, {"dataset": "plain", "epochs": 5, "trials": 6, "workers": 0, **given})


def search(directory: Path, **given: Any) -> tuple[StudyResult, list[events.Event]]:
    told = list(steps(config(**given), directory, objective=TOY))
    assert isinstance(told[-1], events.Finished)
    return told[-1].result, told


def rivals_of(asked: SearchConfig) -> tuple[dict[str, dict[str, Any]], list[str]]:
    space = make_space(asked, 2000, optimizers=optimizer_spaces(asked, PLUGINS))
    found, notes = make_rivals(asked, space, PLUGINS)
    return {rival.name: {**rival.settings, "lr": rival.lr} for rival in found}, notes


@pytest.mark.parametrize(
    ("given", "rivals"),
    [
        ({}, None),
        ({"rivals": "none"}, ()),
        ({"rivals": "adamw, sgd,adamw"}, ("adamw", "sgd")),
        ({"rivals": ["adamw"]}, ("adamw",)),
    ],
)
def test_rivals_are_names_or_none(given: dict[str, Any], rivals: tuple[str, ...] | None) -> None:
    assert config(**given).rivals == rivals


def test_a_rival_that_nobody_registers_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown optimizer 'adamv'\n.*'adamv'\n.*did you mean 'adamw'"):
        list(steps(config(rivals="adamv", dataset="/no/such/folder"), tmp_path / "study"))
    with pytest.raises(ConfigError, match=r"rivals\.1: should be a valid string, got 3"):
        config(rivals=["adamw", 3])
    with pytest.raises(ConfigError, match="schedule-free-adamw needs one above 0"):
        rivals_of(config(rivals="schedule-free-adamw", momentum=0.0))


@pytest.mark.parametrize(
    ("given", "pretrained", "name", "wanted"),
    [
        ({}, False, "adamw", {"lr": 1e-3, "weight_decay": 1e-2, "schedule": "cosine"}),
        ({}, True, "adamw", {"lr": 2e-4, "weight_decay": 0.0, "schedule": "cosine"}),
        ({"freeze": "backbone"}, True, "adamw", {"lr": 1e-3, "weight_decay": 1e-2}),
        ({"weight_decay": 0.3}, True, "adamw", {"lr": 2e-4, "weight_decay": 0.3}),
        ({"lr": (0.1, 0.2)}, False, "adamw", {"lr": 1e-3}),
        ({}, False, "schedule-free-adamw", {"lr": 2.5e-3, "weight_decay": 0.0, "schedule": "constant"}),
        ({"optimizer": "adamw"}, False, "sgd", {"lr": 1e-3, "weight_decay": 1e-4, "momentum": 0.9}),
        ({"search": ["optimizer=adamw,schedule-free-adamw"]}, False, "sgd", {"lr": 1e-3, "weight_decay": 1e-4}),
    ],
)
def test_a_rival_has_its_published_settings(
    given: dict[str, Any], pretrained: bool, name: str, wanted: dict[str, Any]
) -> None:
    found, notes = rivals_of(config(rivals=name, **given).for_start(pretrained=pretrained))
    assert wanted.items() <= found[name].items()
    assert f"the rival {name} runs beside the trials, with its published lr {wanted['lr']:g}" in notes[0]


def test_a_rival_that_is_trial_0_is_not_run_twice() -> None:
    assert rivals_of(config(rivals="sgd")) == ({}, ["the rival sgd is trial 0 itself, and is not run twice"])


def test_rivals_compete_beside_the_trials_which_stay_as_they_are(tmp_path: Path) -> None:
    result, told = search(tmp_path / "toy", trials=12, rivals="schedule-free-adamw,adamw", lr=(0.01, 1.0))
    bounded, _ = search(tmp_path / "bounded", trials=12, lr=(0.01, 1.0))
    assert len(result.trials) == 14
    rivals = {trial.number: trial for trial in result.trials if trial.rival is not None}
    assert list(rivals) == [1, 2]
    assert (rivals[1].params["lr"], rivals[1].params["optimizer"]) == (2.5e-3, "schedule-free-adamw")
    assert rivals[2].rival is not None
    assert rivals[2].rival["weight_decay"] == 0.01
    others = [trial.params for trial in result.trials if trial.rival is None]
    assert others[:10] == [trial.params for trial in bounded.trials][:10]
    started = [line for event in told if isinstance(event, events.TrialStarted) for line in describe(event)]
    assert [line for line in started if "trial 1 (rival) starts" in line]
    assert all(trial.state in ("COMPLETE", "PRUNED") for trial in result.trials)


def test_rivals_are_marked_and_the_first_paragraph_says_what_was_gained(tmp_path: Path) -> None:
    result, _ = search(tmp_path / "toy", trials=6, rivals="adamw")
    report = read_study(tmp_path / "toy")
    assert result.gain is not None
    assert report.gain == result.gain
    sentence = result.gain.sentence()
    assert sentence.startswith("The search gained ")
    assert sentence in study_answer(report, {})["sentences"][1]
    assert sentence in result_lines(events.Finished(result))
    assert json.loads(json.dumps(report.to_dict()))["gain"]["over"] == result.gain.over
    assert json.loads((tmp_path / "toy" / "result.json").read_text())["gain"]["what"] == result.gain.what
    shown = CliRunner().invoke(report_command, [str(tmp_path / "toy")], standalone_mode=False).stdout
    assert " ".join(sentence.split()) in " ".join(shown.split())
    assert "the rival adamw, untuned" in report.ended(report.trials[1])
    assert {trial.params["optimizer"] for trial in report.trials} == {"sgd", "adamw"}
    assert "6 trials can be compared" in str(space_section(report)["importance"])  # of the 7 a rival does not count
    again, _ = search(tmp_path / "toy", trials=6, rivals="adamw")
    assert (again.gain, len(again.trials)) == (result.gain, 7)


def test_a_rival_beside_searched_optimizers_keeps_its_own_settings(tmp_path: Path) -> None:
    entries = ["optimizer=sgd,adamw", "weight_decay=1e-6:1e-3", "momentum=0.5:0.95"]
    result, _ = search(tmp_path / "toy", trials=2, rivals="adamw", search=entries)
    rival = result.trials[1]
    assert rival.rival is not None
    assert rival.rival["weight_decay"] == 0.01
    assert rival.params == {"lr": 1e-3, "batch_size": 16, "optimizer": "adamw", "momentum": 0.9}


def test_rivals_may_join_a_study_later_and_stay(tmp_path: Path) -> None:
    search(tmp_path / "toy", trials=3)
    assert len(search(tmp_path / "toy", trials=3, rivals="adamw")[0].trials) == 4
    without = search(tmp_path / "toy", trials=4)[0].trials
    assert [trial.rival is not None for trial in without] == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("given", "rivals"),
    [
        ({"pretrained": False}, ["adamw"]),
        ({"pretrained": False, "rivals": "none"}, []),
        ({"pretrained": False, "rivals": "sgd,schedule-free-adamw"}, ["schedule-free-adamw"]),
        ({"pretrained": False, "optimizer": "adamw"}, []),  # trial 0 is it
        ({"pretrained": False, "trials": 2}, []),  # both run in full
        ({"pretrained": False, "epochs": 1}, []),
        ({"pretrained": False, "pruner": "none"}, []),
        ({"pretrained": False, "pruner": "median"}, []),
        ({}, []),  # what toys start from is not known
    ],
)
def test_a_study_from_random_weights_has_a_rival_where_it_costs_a_proxy_run(
    given: dict[str, Any], rivals: list[str], tmp_path: Path
) -> None:
    result, told = search(tmp_path / "toy", **given)
    assert [trial.rival["optimizer"] for trial in result.trials if trial.rival is not None] == rivals
    notes = [event.text for event in told if isinstance(event, events.Notice) and "runs beside" in event.text]
    assert len(notes) == len(rivals)


def test_a_study_keeps_the_rivals_that_it_began_with(tmp_path: Path) -> None:
    search(tmp_path / "without", pretrained=False, trials=4, rivals="none")
    assert len(search(tmp_path / "without", pretrained=False, trials=5)[0].trials) == 5
    search(tmp_path / "with", pretrained=False, trials=4)
    later, _ = search(tmp_path / "with", pretrained=False, trials=5)
    assert [trial.rival is not None for trial in later.trials] == [False, True, False, False, False, False]
    assert len(search(tmp_path / "with", pretrained=False, trials=5, rivals="none")[0].trials) == 6


def test_a_rival_by_default_is_there_however_often_the_search_is_stopped(tmp_path: Path) -> None:
    whole, _ = search(tmp_path / "whole", pretrained=False)
    begun = steps(config(pretrained=False), tmp_path / "cut", objective=TOY)
    next(event for event in begun if isinstance(event, events.TrialStarted))
    begun.close()
    cut, _ = search(tmp_path / "cut", pretrained=False)
    assert [trial.params for trial in cut.trials] == [trial.params for trial in whole.trials]


def test_a_study_that_follows_begins_with_the_best_searched_settings(tmp_path: Path) -> None:
    result, _ = search(tmp_path / "toy", trials=3, pruner="none", rivals="adamw", lr=(1e-4, 2e-4))
    assert result.best is not None
    assert result.best.rival is not None
    assert "a search with --optimizer adamw and another --name" in result_lines(events.Finished(result))[-1]
    searched = min((one for one in result.trials if one.rival is None), key=lambda one: one.value or 0)
    wanted = {"backbone": "resnet18", "optimizer": "sgd", **searched.params}
    assert best_settings(config(warm_start=str(tmp_path / "toy"))) == wanted


def trial(number: int, loss: float | None, rival: str | None = None, **more: Any) -> TrialRecord:
    state = "PRUNED" if loss is None else "COMPLETE"
    own = None if rival is None else {"optimizer": rival}
    return TrialRecord(number, state, {}, loss, 5, 1.0, "completed", {}, rival=own, **more)


@pytest.mark.parametrize(
    ("best", "records", "error", "said"),
    [
        (
            2,
            [trial(0, 0.5), trial(1, 0.4, "adamw"), trial(2, 0.3)],
            0.01,
            "gained 0.1000 in validation loss over the rival adamw, trial 1",
        ),
        (2, [trial(0, 0.5), trial(1, 0.4, "adamw"), trial(2, 0.3)], 0.01, "error of 0.0100: statistically clear."),
        (2, [trial(0, 0.5), trial(1, 0.4, "adamw"), trial(2, 0.3)], 0.08, "a statistical tie"),
        (2, [trial(0, 0.4), trial(2, 0.3)], None, "over the default, trial 0, .* by the losses alone"),
        (1, [trial(0, 0.5), trial(1, 0.4, "adamw"), trial(2, 0.6)], None, "No trial is better than the rival adamw"),
        (
            0,
            [trial(0, 0.5), trial(2, 0.6)],
            None,
            "No trial is better than the default, trial 0, which needs",
        ),
        (
            2,
            [
                trial(0, None, ranks={0.5: 0.9}),
                trial(1, None, "adamw", ranks={0.5: 0.8}),
                trial(2, 0.3, ranks={0.5: 0.6}),
            ],
            None,
            "gained 0.2000 in loss over the rival adamw, trial 1, .* by the loss after 0.5 epochs, where",
        ),
        (2, [trial(0, None, ranks={0.5: 0.9}), trial(2, 0.3)], None, "not known, because the two were never compared"),
        (2, [trial(0, 0.2), trial(2, 0.3)], None, "By validation loss the search gained nothing over the default"),
    ],
)
def test_the_gain_is_said_with_its_uncertainty(
    best: int, records: list[TrialRecord], error: float | None, said: str
) -> None:
    over = best_unsearched(records)
    assert over is not None
    chosen = next(record for record in records if record.number == best)
    sentence = gain_over(chosen, over, error).sentence()
    assert re.search(said, sentence), sentence


def test_a_gain_over_nothing_is_none() -> None:
    assert best_unsearched([trial(3, 0.3)]) is None
    probe = TrialRecord(-1, "COMPLETE", {}, 0.2, 1, 1.0, "probe", {})
    assert "No trial is better than the probe" in gain_over(probe, trial(0, 0.5)).sentence()
    assert Gain.from_dict({"best": 1, "over": 0, "what": "the default", "new": 3}).difference is None
