"""Reports of studies: finished, running, interrupted, not started, damaged."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import CliRunner
from rich.console import Console
from toy_trial import TOY

from automl_pt.api.search import steps
from automl_pt.cli.report import command as report
from automl_pt.cli.report_display import print_study
from automl_pt.cli.studies import command as studies
from automl_pt.config import SearchConfig
from automl_pt.core.errors import CheckpointError, StorageError, StudyError, UnknownNameError
from automl_pt.core.locks import locked
from automl_pt.reporting.run import read_run
from automl_pt.reporting.study import StudyReport, list_studies, read_study, storage_url
from automl_pt.runs.directory import history
from automl_pt.study.records import TrialRecord
from automl_pt.study.store.backends import default_url, open_storage
from automl_pt.study.store.coordination import SingleCoordinator
from automl_pt.study.store.trials import TrialStore

FIELDS = {"number", "state", "params", "value", "epochs", "seconds", "reason"}


def search(directory: Path, **settings: Any) -> None:
    config = SearchConfig(**{"dataset": "plain", "epochs": 9, "trials": 4, "workers": 0, **settings})
    list(steps(config, directory, objective=TOY))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("searched") / "toy"
    search(directory)
    return directory


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, searched: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(searched, "studies/toy"))


def leave_a_trial(directory: Path) -> None:
    """Begin a trial as a search does that is killed then."""
    storage = open_storage(default_url(directory))
    TrialStore(storage, directory.name, SingleCoordinator(), "").add({}, {})


def test_a_finished_study_is_told_whole(study: Path) -> None:
    found = read_study("toy")
    assert (found.name, found.status, found.stopped) == ("toy", "finished", "trials")
    assert found.best is not None
    assert found.best.value == min(trial.value for trial in found.trials if trial.state == "COMPLETE" and trial.value)
    assert found.states() == {"COMPLETE": 2, "PRUNED": 2}
    assert found.comparison is not None
    assert found.backbones == ("resnet18",)
    assert read_study(study) == found


def test_json_has_the_trials_by_number(study: Path, runner: CliRunner) -> None:
    done = runner.invoke(report, ["toy", "--json"], standalone_mode=False)
    found = json.loads(done.stdout)
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2, 3]
    assert all(trial.keys() >= FIELDS for trial in found["trials"])
    assert found["best"] in found["trials"]


def test_the_table_has_the_best_trial_first(study: Path, runner: CliRunner) -> None:
    text = runner.invoke(report, ["toy"], standalone_mode=False).stdout
    best = read_study("toy").best
    assert best is not None
    lines = text.splitlines()
    first = next(index for index, line in enumerate(lines) if "──" in line) + 1
    assert lines[first].split()[0] == str(best.number)
    assert f"best: trial {best.number}" in text


def test_a_trial_dropped_within_its_first_epoch_shows_by_what(tmp_path: Path) -> None:
    search(tmp_path / "toy", trials=16)
    found = read_study(tmp_path / "toy")
    dropped = next(trial for trial in found.trials if trial.epochs == 0)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_study(found, console)
    console.file.close()
    assert re.search(rf"~{dropped.rank_loss:.4f} +- +0.88 ", console.export_text())
    assert dropped.to_dict() | {"ranks": {"0.875": dropped.rank_loss}, "ranked_at": 7 / 8} == (dropped.to_dict())
    # and Optuna's tools find it as a number and as a point to draw
    plain = optuna.load_study(study_name="toy", storage=storage_url(tmp_path / "toy")).get_trials()[dropped.number]
    assert plain.user_attrs["rank_loss"] == dropped.rank_loss
    assert plain.intermediate_values == {0: dropped.rank_loss}


def test_a_study_under_way_and_one_cut_off_differ_by_the_lock(study: Path) -> None:
    leave_a_trial(study)
    with locked(study / ".lock"):
        found = read_study("toy")
        assert (found.status, found.trials[-1].reason) == ("running", "running")
    found = read_study("toy")
    assert (found.status, found.trials[-1].reason, found.stopped) == ("interrupted", "interrupted", None)


def test_reading_changes_nothing(study: Path) -> None:
    before = {
        path: path.read_bytes() for path in study.rglob("*") if path.is_file() and path.suffix in (".json", ".db")
    }
    read_study("toy")
    assert {path: path.read_bytes() for path in before} == before


def test_a_moved_study_is_read(study: Path, tmp_path: Path) -> None:
    trials = read_study("toy").trials
    study.rename(tmp_path / "moved")
    assert read_study(tmp_path / "moved").trials == trials


def test_an_unknown_study_suggests_names(study: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'toy'"):
        read_study("toyy")


@pytest.mark.parametrize(
    ("file", "content", "kind", "message"),
    [
        ("study.json", "{", StudyError, "study.json: Expecting"),
        ("study.json", "[]", StudyError, "it is not an object"),
        ("study.json", '{"name": "other", "storage": "study.db"}', StudyError, "other is not in sqlite"),
        (
            "study.json",
            '{"name": "toy", "storage": "mysql://u:***@h/d"}',
            StudyError,
            "give the whole URL by --storage",
        ),
        ("study.json", '{"storage": "study.db"}', StudyError, "it names no study and storage"),
        ("study.db", "junk", StorageError, "study.db"),
        ("result.json", "junk", StudyError, "result.json: Expecting"),
    ],
)
def test_damaged_files_are_named(study: Path, file: str, content: str, kind: type[Exception], message: str) -> None:
    (study / file).write_text(content)
    for rest in study.glob(f"{file}-*"):
        rest.unlink()
    with pytest.raises(kind, match=message):
        read_study("toy")


def test_a_study_without_its_storage_says_so(study: Path) -> None:
    (study / "study.db").unlink()
    with pytest.raises(StudyError, match="toy has no study.db"):
        read_study("toy")
    assert not (study / "study.db").exists()


def test_studies_lists_all_and_names_those_that_cannot_be_read(study: Path, runner: CliRunner) -> None:
    for name, content in (("asked", 'dataset = "digits"\nbackbones = ["resnet18"]'), ("broken", "dataset = ")):
        (Path("studies") / name).mkdir()
        (Path("studies") / name / "study.toml").write_text(content)
    (Path("studies") / "empty").mkdir()
    found = list_studies()
    assert [one.name for one in found if isinstance(one, StudyReport)] == ["asked", "toy"]
    done = runner.invoke(studies, [], standalone_mode=False)
    assert done.return_value == 1
    assert "not started" in done.stdout
    assert "2 complete, 2 pruned" in done.stdout
    assert "broken" in done.stderr
    listed = json.loads(runner.invoke(studies, ["--json"], standalone_mode=False).stdout)
    assert [(one["name"], one["trials"], one["status"]) for one in listed] == [
        ("asked", 0, "not started"),
        ("toy", 4, "finished"),
    ]


def test_no_studies_says_how_to_make_one(tmp_path: Path, runner: CliRunner) -> None:
    done = runner.invoke(studies, ["--root", str(tmp_path / "none")], standalone_mode=False)
    assert "`automl-pt search FOLDER` makes one" in done.stdout


def test_hostile_text_is_shown_as_text(study: Path) -> None:
    trial = TrialRecord(0, "FAIL", {"backbone": "[red]x[/red]\x1b[2J"}, None, 0, 0.0, "failed: \x1b]0;x\x07\nnext", {})
    other = TrialRecord(1, "FAIL", {"backbone": "y"}, None, 0, 0.0, "failed: x", {})
    found = read_study("toy")
    hostile = StudyReport(**{**vars(found), "trials": (trial, other), "dataset": "a\u202eb", "best": None})
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_study(hostile, console)
    console.file.close()
    text = console.export_text()
    assert "[red]x[/red]\\x1b[2J" in text
    assert "failed: \\x1b]0;x\\x07\\nnext" in text
    assert "a\\u202eb" in text
    assert "\x1b" not in text


def epoch(number: int, **changes: Any) -> dict[str, Any]:
    values = {"epoch": number, "train_loss": 1.0, "val_loss": 1 / number, "val_accuracy": 0.5, "val_top5": None}
    more = {"lr": 0.1, "images_per_second": 10.0, "data_wait": 0.0, "peak_memory": 1, "seconds": 2.0, "is_best": True}
    return {**values, **more, "reason": None, "notes": [], **changes}


@pytest.fixture
def one_run(tmp_path: Path) -> Path:
    record = {"config": {"backbone": "resnet18", "dataset": "a[red]\x1bb", "lr": 0.1, "seed": 1}, "reason": None}
    (tmp_path / "run.json").write_text(json.dumps({**record, "error": None}))
    lines = [epoch(1), epoch(2), epoch(3, val_loss=None, is_best=False)]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_a_single_run_is_reported(one_run: Path, runner: CliRunner) -> None:
    found = json.loads(runner.invoke(report, [str(one_run), "--json"], standalone_mode=False).stdout)
    assert [one["epoch"] for one in found["epochs"]] == [1, 2, 3]
    assert (found["status"], found["best"]["epoch"]) == ("interrupted", 2)
    text = runner.invoke(report, [str(one_run)], standalone_mode=False).stdout
    assert "resnet18 on a[red]\\x1bb: interrupted; lr 0.1, seed 1" in text
    assert "best: epoch 2, val loss 0.5000" in text
    (one_run / ".lock").touch()
    with locked(one_run / ".lock"):
        assert read_run(one_run).status == "running"
    (one_run / "run.json").write_text('{"config": {}, "reason": "failed", "error": "boom"}')
    (one_run / "history.jsonl").unlink()
    assert "boom" in runner.invoke(report, [str(one_run)], standalone_mode=False).stdout


@pytest.mark.parametrize("line", ["{", "[1]", "1", "null", '{"epoch": 1}', "\udcff", "[" * 99_999, "text for lr"])
def test_a_damaged_history_is_named(one_run: Path, line: str, runner: CliRunner) -> None:
    path = one_run / "history.jsonl"
    if line == "text for lr":
        line = json.dumps({**json.loads(path.read_text().splitlines()[0]), "lr": "0.1"})
    path.write_bytes(line.encode("utf-8", "surrogateescape"))
    message = r"a file of the run is damaged\n  given: .*history.jsonl(.|\n)*restore the file from a copy"
    with pytest.raises(StudyError, match=message):
        read_run(one_run)
    with pytest.raises(StudyError, match=message):
        runner.invoke(report, [str(one_run)], standalone_mode=False, catch_exceptions=False)
    with pytest.raises(CheckpointError, match=r"the run's history is damaged(.|\n)*restore the file"):
        history(one_run)


@pytest.mark.parametrize("content", ["{", "[]", "\udcff", "[" * 99_999, '{"config": 1}'])
def test_a_damaged_run_is_named(one_run: Path, content: str, runner: CliRunner) -> None:
    (one_run / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(StudyError, match=r"a file of the (study|run) is damaged(.|\n)*restore the file from a copy"):
        runner.invoke(report, [str(one_run)], standalone_mode=False, catch_exceptions=False)
