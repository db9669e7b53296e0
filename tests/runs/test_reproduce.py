from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import write_folder
from tiny_runs import write_plugin

from automl_pt.api.search import steps
from automl_pt.cli import cli
from automl_pt.config import SearchConfig, TrainConfig, make
from automl_pt.core.errors import CheckpointError, ConfigError
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs import run
from automl_pt.runs.reproduce import Reproduction


@pytest.fixture
def original(tiny_folder: Path, tmp_path: Path) -> Path:
    settings: dict[str, Any] = {"backbone": "tiny", "epochs": 2, "batch_size": 4, "threads": 1, "device": "cpu"}
    plugin = write_plugin(tmp_path)
    config = make(TrainConfig, {"dataset": str(tiny_folder), "plugins": (str(plugin),), **settings})
    plugins = load_plugins(config.plugins)
    (tmp_path / "run").mkdir()
    data = prepare(config, plugins, manifest=tmp_path / "run" / "manifest.json")
    list(run.execute(config, tmp_path / "run", data=data, plugins=plugins))
    return tmp_path / "run"


def plugin_of(original: Path) -> str:
    return str(original.parent / "tiny_plugin.py")


def again(original: Path) -> Reproduction:
    return Reproduction(original, plugins=load_plugins([plugin_of(original)]))


def test_a_run_comes_out_the_same(original: Path, runner: CliRunner) -> None:
    result = runner.invoke(cli, ["reproduce", str(original), "--plugin", plugin_of(original)])
    assert result.exit_code == 0, result.output
    assert "epoch 2:" in result.stdout
    assert "weights: equal bit for bit" in result.stdout
    assert (original.with_name("run-again") / "model.json").exists()


def test_a_trial_is_repeated_on_the_split_of_its_study(tmp_path: Path, runner: CliRunner) -> None:
    images = write_folder(tmp_path / "images", {"": 12})  # no splits: the study draws one, by its own seed
    config = SearchConfig(
        **{"dataset": str(images), "backbones": ("tiny",), "plugins": (str(write_plugin(tmp_path)),), "epochs": 2},
        **{"trials": 2, "batch_sizes": (4,), "lr": (0.01, 0.1), "threads": 1, "workers": 0, "device": "cpu"},
        **{"pruner": "none", "report": False, "seed": 3},
    )
    list(steps(config, tmp_path / "study"))
    said = {}
    for trial in sorted((tmp_path / "study" / "trials").iterdir()):
        words = ["reproduce", str(trial), "--plugin", *config.plugins]
        result = runner.invoke(cli, [*words, "--output", str(tmp_path / f"again-{trial.name}")])
        assert result.exit_code == 0, result.output
        assert "data was" not in result.stderr
        assert not (trial / "manifest.json").exists()
        said[(trial / "model.json").exists()] = result.stdout.splitlines()[-1]
    # of two trials a search keeps the better one's weights
    assert said == {
        True: "weights: equal bit for bit",
        False: "weights: not compared, for the original has none",
    }


def test_no_other_split_is_drawn_for_a_run_whose_own_is_gone(original: Path) -> None:
    (original / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"(?s)the split of this run is missing.*no manifest.json.*a copy"):
        again(original)
    assert not (original / "manifest.json").exists()


@pytest.mark.parametrize(("stands", "named"), [("", "."), ("sub", "..")])
def test_the_folder_one_stands_in_can_be_named(
    original: Path, runner: CliRunner, monkeypatch: pytest.MonkeyPatch, stands: str, named: str
) -> None:
    (original / stands).mkdir(exist_ok=True)
    monkeypatch.chdir(original / stands)
    assert runner.invoke(cli, ["reproduce", named, "--plugin", plugin_of(original)]).exit_code == 0
    assert (original.with_name("run-again") / "model.json").exists()


def test_what_has_changed_is_said_beforehand(original: Path) -> None:
    record = json.loads((original / "run.json").read_text())
    record["versions"]["torch"] = "1.0"
    record["device"] = "cuda:0 (a big one)"
    (original / "run.json").write_text(json.dumps(record))
    changes = again(original).changes()
    assert any(change.startswith("torch was 1.0 and is ") for change in changes)
    assert "device was cuda:0 (a big one) and is cpu (1 threads)" in changes
    assert len(changes) == 2


def test_differences_are_named(original: Path, tmp_path: Path) -> None:
    record = json.loads((original / "run.json").read_text())
    record["config"]["lr"] *= 2  # as if it had been another run
    (original / "run.json").write_text(json.dumps(record))
    reproduction = again(original)
    list(reproduction.run(tmp_path / "again"))
    found = reproduction.compare(tmp_path / "again")
    assert not found.same
    assert not found.same_weights
    assert any(text.startswith("epoch 1: val_loss was ") for text in found.differences)


def test_a_run_that_left_no_weights_this_time_differs(original: Path, tmp_path: Path) -> None:
    record = json.loads((original / "run.json").read_text())
    record["config"]["lr"] = 1e30  # as if another machine's rounding had made it diverge
    (original / "run.json").write_text(json.dumps(record))
    reproduction = again(original)
    list(reproduction.run(tmp_path / "again"))
    assert not (tmp_path / "again" / "model.json").exists()
    assert reproduction.compare(tmp_path / "again").same_weights is False


def test_only_a_finished_run_can_be_compared_with(original: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="it holds no run.json"):
        Reproduction(tmp_path)
    record = json.loads((original / "run.json").read_text())
    (original / "run.json").write_text(json.dumps({**record, "reason": "interrupted"}))
    with pytest.raises(CheckpointError, match="it ended with 'interrupted'"):
        again(original)


def test_a_folder_of_another_run_is_not_touched(original: Path) -> None:
    with pytest.raises(CheckpointError, match="the output folder holds a run already"):
        list(again(original).run(original))


def test_a_run_of_a_version_that_augmented_every_epoch_is_augmented_in_every_epoch(original: Path) -> None:
    record = json.loads((original / "run.json").read_text())
    assert record["config"]["augment"] == "early"
    (original / "run.json").write_text(json.dumps({**record, "config": {**record["config"], "augment": "auto"}}))
    assert again(original).config.augment == "always"


def test_a_record_with_unknown_settings_is_refused(original: Path) -> None:
    record = json.loads((original / "run.json").read_text())
    (original / "run.json").write_text(json.dumps({**record, "config": {**record["config"], "bogus": 1}}))
    with pytest.raises(ConfigError, match="bogus: unknown setting"):
        again(original)


DAMAGED: dict[str, str | dict[str, Any]] = {
    "nonsense": "{",
    "a list": "[1]",
    "deep": "[" * 99_999,
    "no settings": {"config": None},
    "no versions": {"versions": []},
    "no data": {"data": {}},
    "text for threads": {"threads": "2"},
    "no threads": {"threads": 0},
    "no device": {"device": 1},
    "a list of reasons": {"reason": ["completed"]},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_record_is_named(tmp_path: Path, runner: CliRunner, name: str) -> None:
    path, change = tmp_path / "run" / "run.json", DAMAGED[name]
    path.parent.mkdir()
    whole = {
        **{"config": {}, "versions": {}, "data": {"fingerprint": "a"}, "threads": 1, "reason": "completed"},
        **{"device": "cpu", "precision": "fp32"},
    }
    path.write_text(change if isinstance(change, str) else json.dumps({**whole, **change}))
    message = r"run.json: |it ended with \['completed'\]"
    with pytest.raises(CheckpointError, match=message):
        runner.invoke(cli, ["reproduce", str(path.parent)], standalone_mode=False, catch_exceptions=False)


def test_a_plugin_file_that_the_run_names_is_not_loaded(original: Path, runner: CliRunner) -> None:
    evil, canary = original / "tiny_plugin.py", original / "canary"
    evil.write_text(f"open({str(canary)!r}, 'w').close()\n{Path(plugin_of(original)).read_text()}")
    record = json.loads((original / "run.json").read_text())
    record["config"]["plugins"] = [str(evil)]
    (original / "run.json").write_text(json.dumps(record))
    refused = runner.invoke(cli, ["reproduce", str(original)], standalone_mode=False)
    assert isinstance(refused.exception, CheckpointError)
    assert "--plugin" in refused.exception.remedy
    (original / "run.json").write_text(json.dumps({**record, "plugins": []}))
    assert "run was started with the plugin file" in Reproduction(original).changes()[-1]
    assert not canary.exists()
    assert not again(original).config.plugins


@pytest.mark.parametrize("asked", [False, True])
def test_places_to_write_to_and_leave_to_download_are_not_taken_from_the_run(
    original: Path, tmp_path: Path, asked: bool
) -> None:
    record = json.loads((original / "run.json").read_text())
    record["config"] |= {"cache_dir": str(tmp_path / "elsewhere"), "download": True, "root": str(tmp_path / "root")}
    (original / "run.json").write_text(json.dumps(record))
    plugins = load_plugins([plugin_of(original)])
    config = Reproduction(original, plugins=plugins, download=asked).config
    assert (config.cache_dir, config.download, config.trackers) == (None, asked, ())
    assert (config.root is None) is asked  # what is fetched is written to it
    assert not (tmp_path / "elsewhere").exists()
