"""How commands end: with which code, with what left behind, and what later commands say of it."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import write_plugin
from toy_trial import TOY

import automl_pt
from automl_pt.api.search import study_name
from automl_pt.backbone import Backbone
from automl_pt.cli import main
from automl_pt.cli.search import no_model
from automl_pt.cli.signals import Stop
from automl_pt.config import SearchConfig, TrainConfig
from automl_pt.core.errors import (
    AutomlError,
    ConfigError,
    InvalidModelDirectoryError,
    PluginError,
    StudyError,
    UsageError,
)
from automl_pt.core.missing_model import of_trials, why_no_model
from automl_pt.model.load import load_model
from automl_pt.runs.directory import default_output
from automl_pt.study.setup import files_of
from automl_pt.study.space.dimensions import dimensions
from automl_pt.study.space.points import count_points, few_images, settle
from automl_pt.study.space.space import Space

DOCS = (Path(__file__).parents[2] / "docs" / "reference" / "exit-codes.md").read_text()


def ended(*words: object) -> int:
    """Run the command line here and return its exit code."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert isinstance(end.value.code, int)
    return end.value.code


def test_the_exit_codes_are_those_of_the_table() -> None:
    signals = {Stop("", number).exit_code for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    known = {0, AutomlError.exit_code, UsageError.exit_code, *signals}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", DOCS, re.M)} == known == {0, 1, 2, 129, 130, 138, 143}


def test_dir_lists_the_api() -> None:
    assert set(automl_pt.__all__) <= set(dir(automl_pt))


def test_a_training_that_diverges_ends_with_1_and_later_commands_say_so(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin, run = write_plugin(tmp_path), tmp_path / "run"
    words = ("train", tiny_folder, "--plugin", plugin, "--backbone", "tiny", "-o", run, "--batch-size", "4")
    words = (*words, "--lr", "1e30", "--schedule", "constant", "--device", "cpu", "--threads", "1", "--quiet")
    assert ended(*words) == 1
    assert "diverged in epoch 1, because its loss was not finite: there is no model" in capsys.readouterr().err
    assert ended(*words) == 1  # nothing is left to do, and there is no model still
    capsys.readouterr()
    later: list[tuple[object, ...]] = [
        ("predict", run, tiny_folder),
        ("evaluate", run, tiny_folder),
        ("export", run, "--format", "onnx"),
        ("serve", run),
        (*words[:7], tmp_path / "other", "--weights", run),
    ]
    for later_words in later:
        assert ended(*later_words) == 1
        assert "diverged in epoch 1" in capsys.readouterr().err, later_words
    with pytest.raises(InvalidModelDirectoryError, match="no model: the run diverged"):
        load_model(run)
    assert not (tmp_path / "other").exists()


MISTAKES = {
    "folder": (2, "absent", ()),
    "backbone": (2, "images", ("--backbone", "tyni")),
    "option": (2, "images", ("--backbone-option", "x=1")),
    "setting": (2, "images", ("--epochs", "0")),
    "device": (1, "images", ("--device", "cuda:7")),
    "plugin": (1, "images", ("--plugin", "absent.py")),
    "folder of plugins": (1, "images", ("--plugin", ".")),
    "tracker": (2, "images", ("--tracker", "wibble")),
    "weights": (1, "images", ("--weights", "absent.safetensors")),
    "weights in a folder": (1, "images", ("--weights", "images")),
    "batch size": (2, "images", ("--batch-size", "999")),
    "config": (2, "images", ("--config", "absent.toml")),
}
OF_SEARCH = {
    "pruner": (2, "images", ("--pruner", "wibble")),
    "storage": (1, "images", ("--storage", "wibble")),
    "storage without a file": (1, "images", ("--storage", "sqlite://")),
    "storage that is a folder": (1, "images", ("--storage", "sqlite:///images")),
    "storage of a mistake": (2, "images", ("--storage", "sqlite:///sub/x.db", "--batch-size", "999")),
    "journal of a mistake": (2, "images", ("--storage", "journal:sub/x.log", "--batch-size", "999")),
    "time": (1, "images", ("--timeout", "0.001")),
}
CASES = [(one, *MISTAKES[name]) for one in ("train", "search") for name in MISTAKES]
CASES += [("search", *values) for values in OF_SEARCH.values()]


@pytest.mark.parametrize(("name", "code", "data", "words"), CASES)
def test_what_is_refused_leaves_nothing_behind(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int, data: str, words: Any
) -> None:
    tiny_folder.rename(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    more = ("-o", "deep/run") if name == "train" else ("--name", "s", "--workers", "0", "--trials", "1")
    before = sorted(tmp_path.rglob("*"))
    plugin = ("--plugin", write_plugin(tmp_path.parent))
    assert ended(name, data, *plugin, "--backbone", "tiny", "--device", "cpu", *more, *words) == code
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("url", ["sqlite:///x.db", "journal:x.log"])
def test_a_study_that_may_not_begin_stays_out_of_a_storage_that_was_there(tmp_path: Path, url: str) -> None:
    from automl_pt.study.store.backends import close_storage, open_storage
    from automl_pt.study.store.coordination import SingleCoordinator
    from automl_pt.study.store.trials import TrialStore

    full = url.replace("x.", f"{tmp_path}/x.")
    storage = open_storage(full)
    other = TrialStore(storage, "other", SingleCoordinator(), "x")
    assert other.is_new
    assert not TrialStore(storage, "other", SingleCoordinator(), "x").is_new
    (tmp_path / "s" / "trials" / "0").mkdir(parents=True)
    (tmp_path / "s" / "trials" / "0" / "run.json").write_text("{}")
    config = SearchConfig(dataset="toy", storage=full, name="s", trials=1, workers=0)
    with pytest.raises(StudyError, match="holds the trials of another study"):
        run_search_of_toys(config, tmp_path / "s")
    assert [study.study_name for study in storage.get_all_studies()] == ["other"]
    close_storage(storage)
    assert files_of(full, "s")[0] == tmp_path / url.rpartition("/")[2].removeprefix("journal:")


def run_search_of_toys(config: SearchConfig, directory: Path, **more: Any) -> Any:
    from automl_pt.api.search import steps
    from automl_pt.study.events import Finished

    last = list(steps(config, directory, objective=TOY, **more))[-1]
    assert isinstance(last, Finished)
    return last.result


@pytest.mark.parametrize(
    ("trials", "stopped", "what"),
    [
        ([], "timeout", "the time limit was reached before the first trial started"),
        ([], "interrupted", "it was interrupted before the first trial started"),
        ([("FAIL", "failed: x")], "trials", "the only trial failed: x"),
        ([("FAIL", "failed: x"), ("FAIL", "failed: x")], "trials", "all 2 trials failed, 2 of them with: x"),
        ([("PRUNED", "diverged")] * 3, "trials", "all 3 trials diverged, because the loss was not finite"),
        (
            [("FAIL", "failed: x"), ("PRUNED", "diverged"), ("RUNNING", "paused")],
            "timeout",
            "the time limit was reached, and of 3 trials 1 failed, 1 diverged, 1 had not finished an epoch",
        ),
        ([("PRUNED", "pruned")], "trials", "it ended, and of 1 trial 1 had not finished an epoch"),
    ],
)
def test_a_search_says_why_it_left_no_model(trials: list[tuple[str, str]], stopped: str, what: str) -> None:
    assert of_trials(trials, stopped).what == what


def test_a_search_without_a_model_says_so_at_once_and_later(tmp_path: Path) -> None:
    result = run_search_of_toys(SearchConfig(dataset="early-0", trials=1, workers=0), tmp_path / "s")
    assert (result.model, result.best) == (None, None)
    assert "no model: the only trial diverged" in str(no_model(result))
    for path in (tmp_path / "s", tmp_path / "s" / "model"):
        with pytest.raises(InvalidModelDirectoryError, match="in this search the only trial diverged"):
            load_model(path)
    with pytest.raises(StudyError, match="no model: the only trial failed"):
        run_search_of_toys(SearchConfig(dataset="late-1", trials=1, workers=0), tmp_path / "f")
    with pytest.raises(InvalidModelDirectoryError, match="in this search the only trial failed"):
        load_model(tmp_path / "f")


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (
            {"run.json": {"reason": "failed", "error": "OutputError: full"}},
            "the run failed before it saved a model: Out",
        ),
        ({"run.json": {"reason": "interrupted"}}, "the run was stopped before its first epoch ended"),
        ({"study.json": {}}, "the search here has not ended"),
        ({"study.toml": {}}, "the search described here has not been started"),
        ({"study.json": {}, "result.json": {"model": None, "trials": 3}}, "in this search it ended before the first"),
        ({"run.json": {"reason": "completed"}}, None),
        ({"run.json": "[" * 2000}, "the run was stopped"),
        ({}, None),
    ],
)
def test_a_folder_tells_why_it_holds_no_model(tmp_path: Path, files: dict[str, Any], what: str | None) -> None:
    for name, value in files.items():
        (tmp_path / name).write_text(value if isinstance(value, str) else json.dumps(value))
    found = why_no_model(tmp_path)
    assert found is None if what is None else found is not None and found.what.startswith(what)


def test_a_trial_names_its_study(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    (tmp_path / "trials" / "3").mkdir(parents=True)
    (tmp_path / "trials" / "3" / "run.json").write_text('{"reason": "pruned"}')
    found = why_no_model(tmp_path / "trials" / "3")
    assert found is not None
    assert "trial 3 of a search, which keeps the weights of its best trials only" in found.what


NAMES = (
    "кошки",
    "собаки",
    "猫",
    "犬",
    "🐱",
    "my photos",
    "my-photos",
    "my_photos",
    "_x",
    "x",
    "a" * 120,
    "a" * 119,
    "été",
)


def test_datasets_of_different_names_get_different_studies() -> None:
    names = [study_name(SearchConfig(dataset=f"/data/{name}")) for name in NAMES]
    assert len(set(names)) == len(NAMES)
    assert {"my-photos", "my_photos", "x"} <= set(names)
    for name in names:
        SearchConfig(dataset="x", name=name)
    same = {study_name(SearchConfig(dataset=f"/data/{form}")) for form in ("\u00e9t\u00e9", "e\u0301te\u0301")}
    assert len(same) == 1


def test_folders_whose_names_have_dots_get_runs_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos.v1", "photos.v2"):
        Path(name).mkdir()
    Path("list.csv").touch()
    outputs = [default_output(TrainConfig(dataset=name)).name for name in ("photos.v1", "photos.v2", "list.csv", ".")]
    assert outputs == ["photos.v1-resnet18", "photos.v2-resnet18", "list-resnet18", f"{tmp_path.name}-resnet18"]


def build(num_classes: int, pretrained: bool, depth: int = 2, kind: str = "a", rate: float = 0.5) -> Any: ...


def space(lr: tuple[float, float], sizes: tuple[int, ...], *asked: str) -> Space:
    def search_space(trial: Any) -> None:
        if "depth" in asked:
            trial.suggest_int("depth", 1, 3)
        if "kind" in asked:
            trial.suggest_categorical("kind", ["a", "b"])
        if "rate" in asked:
            trial.suggest_float("rate", 0.0, 1.0)

    net = Backbone("acme/net", build, search_space=search_space)
    return Space(lr, sizes, ("acme/net",), dimensions([net], ()))


@pytest.mark.parametrize(
    ("found", "points"),
    [
        (space((0.1, 0.1), (8,)), 1),
        (space((0.1, 0.1), (8, 16)), 2),
        (space((0.1, 0.1), (8, 16), "depth", "kind"), 12),
        (space((0.1, 0.1), (8,), "rate"), None),
        (space((0.1, 0.2), (8,)), None),
    ],
)
def test_the_settings_of_a_space_are_counted(found: Space, points: int | None) -> None:
    assert count_points(found) == points


def test_a_space_of_one_setting_is_one_trial_and_few_settings_are_said() -> None:
    one = space((0.1, 0.1), (8,))
    trials, note = settle(5, one, repeats=False)
    assert trials == 1
    assert note is not None
    assert note.startswith("nothing to search: lr 0.1, batch_size 8 is the single setting, so 1 trial runs inst")
    trials, note = settle(5, one, repeats=True)
    assert (trials, "differ in their seed alone" in str(note)) == (5, True)
    trials, note = settle(5, space((0.1, 0.1), (8, 16)), repeats=False)
    assert (trials, "there are 2 settings to search, and 5 trials" in str(note)) == (5, True)
    assert settle(5, space((0.1, 1.0), (8,)), repeats=False) == (5, None)


def test_batch_sizes_that_few_images_leave_out_are_said() -> None:
    said = few_images(None, 5, 230, (8,))
    assert said is not None
    assert said.startswith(
        "the batch size is not searched, all trials have 8 instead of 16, because larger ones leave a run under"
    )
    assert "trial 0" not in said
    assert "; trial 0 has 32 instead of 16; " in str(few_images(None, 5, 1000, (32, 64)))
    assert str(few_images(None, 5, 1000, (8, 16, 32))).startswith("batch sizes above 32 are not searched")
    assert few_images(None, 5, 10**6, (8, 256)) is None
    assert few_images((8,), 5, 230, (8,)) is None


@pytest.mark.parametrize("several", [True, False])
def test_python_takes_plugin_files_as_the_command_line_does(tiny_folder: Path, tmp_path: Path, several: bool) -> None:
    plugin = write_plugin(tmp_path)
    given: Any = [str(plugin)] if several else plugin
    results = automl_pt.train(
        str(tiny_folder), plugins=given, backbone="tiny", epochs=1, batch_size=4, output=tmp_path / "run", device="cpu"
    )
    assert len(list(results)) == 1
    assert load_model(tmp_path / "run", plugins=given, device="cpu").classes == ("blue", "green", "red")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["plugins"] == [str(plugin)]


@pytest.mark.parametrize("call", [automl_pt.train, automl_pt.search])
def test_what_is_no_plugin_is_refused_in_one_line(call: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="plugins: must be plugin files"):
        call("digits", plugins=42)
    with pytest.raises(PluginError, match="--plugin was given a folder, not a file"):
        call("digits", plugins=[tmp_path], **({} if call is automl_pt.train else {"name": "never", "workers": 0}))
    assert not Path("studies/never").exists()


def test_an_interrupted_search_returns_no_model(tmp_path: Path) -> None:
    config = SearchConfig(dataset="toy", trials=1, workers=0)
    result = run_search_of_toys(config, tmp_path / "s", stop=lambda: signal.SIGINT)
    assert (result.model, result.signal, result.stopped) == (None, signal.SIGINT, "interrupted")
