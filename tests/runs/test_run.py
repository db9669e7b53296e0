"""A run directory: what it holds, how it is gone on with, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import write_folder
from tiny_runs import command, equal, finished, record, write_plugin

from automl_pt.config import Augment, TrainConfig
from automl_pt.core.errors import AutomlError, CheckpointError, ConfigError, DeviceError, OutputError, StudyError
from automl_pt.core.locks import locked
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.runs import run
from automl_pt.runs.directory import default_output, finish, history
from automl_pt.runs.setup import new_training, set_up
from automl_pt.training.checkpoint import Checkpoints
from automl_pt.training.early_stopping import Reason
from automl_pt.training.result import EpochResult


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    return write_plugin(tmp_path)


@pytest.fixture
def plugins(plugin: Path) -> Plugins:
    return load_plugins((str(plugin),))


def start(folder: Path, output: Path, plugins: Plugins, **changes: Any) -> Iterator[EpochResult]:
    settings = {"backbone": "tiny", "epochs": 3, "batch_size": 4, "lr": 0.01, "threads": 1, "device": "cpu", **changes}
    return run.train(str(folder), output=output, plugins=plugins, **settings)


def test_the_command_of_a_run_holds_no_password(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as where a search runs its trials in its own process, or trains its winner once more
    monkeypatch.setattr("sys.argv", ["automl-pt", "search", "photos", "--storage", "postgresql://ann:S3cret@host/db"])
    list(start(tiny_folder, tmp_path / "out", plugins, epochs=1))
    assert record(tmp_path / "out")["command"].endswith("--storage 'postgresql://ann:***@host/db'")


def test_a_finished_run_tells_what_made_it(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    output = tmp_path / "out"
    results = list(start(tiny_folder, output, plugins))
    found = record(output)
    assert found["config"]["lr"] == 0.01
    assert found["config"]["seed"] == 1
    assert {"python", "torch", "torchvision", "timm", "automl-pt"} <= found["versions"].keys()
    assert found["device"] == "cpu (1 threads)"
    assert found["data"]["counts"] == {"train": 24, "val": 12, "test": 12}
    assert len(found["data"]["fingerprint"]) == 64
    assert found["command"]
    assert [plugin["name"] for plugin in found["plugins"]]
    assert (found["reason"], found["error"]) == ("completed", None)
    names = {path.name for path in output.iterdir()}
    assert {"run.json", "manifest.json", "history.jsonl", "model.json", "README.md", "checkpoints"} <= names
    assert list((output / "checkpoints").iterdir()) == []
    assert history(output) == results


def test_history_has_one_line_an_epoch_with_all_figures(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    output = tmp_path / "out"
    for count, _ in enumerate(start(tiny_folder, output, plugins), start=1):
        # epochs are written together with the checkpoint, which saving rarely may put off
        assert len((output / "history.jsonl").read_text().splitlines()) <= count
    lines = (output / "history.jsonl").read_text().splitlines()
    assert len(lines) == count
    last = json.loads(lines[-1])
    assert last["epoch"] == 3
    assert last["peak_memory"] > 0
    assert last["images_per_second"] > 0
    assert 0 <= last["data_wait"] <= 1
    assert last["val_top5"] is None


def test_a_finished_run_yields_nothing_more(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    output = tmp_path / "out"
    list(start(tiny_folder, output, plugins))
    before = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    assert list(start(tiny_folder, output, plugins)) == []
    assert {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("left_after", [1, 2])
def test_a_run_left_early_goes_on_bit_for_bit(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins, left_after: int
) -> None:
    expected = list(start(tiny_folder, tmp_path / "whole", plugins))
    generator = start(tiny_folder, tmp_path / "left", plugins)
    found = [next(generator) for _ in range(left_after)]
    generator.close()  # type: ignore[attr-defined]
    assert record(tmp_path / "left")["reason"] == "interrupted"
    found += start(tiny_folder, tmp_path / "left", plugins)
    assert record(tmp_path / "left")["reason"] == "completed"
    assert [result.val_loss for result in found] == [result.val_loss for result in expected]
    assert equal(tmp_path / "left", tmp_path / "whole")


def test_a_run_of_a_version_that_augmented_every_epoch_goes_on_with_always(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins
) -> None:
    list(start(tiny_folder, tmp_path / "whole", plugins, augment="always"))
    generator = start(tiny_folder, tmp_path / "left", plugins, augment="always")
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    path = tmp_path / "left" / "run.json"
    made = json.loads(path.read_text())
    path.write_text(json.dumps({**made, "config": {**made["config"], "augment": "auto"}}))  # as it was called there
    with pytest.raises(CheckpointError, match="augment was 'always' and is 'early'"):
        list(start(tiny_folder, tmp_path / "left", plugins))
    list(start(tiny_folder, tmp_path / "left", plugins, augment="always"))
    assert equal(tmp_path / "left", tmp_path / "whole")


@pytest.mark.parametrize(("augment", "augmented"), [("early", 2), ("always", 5), ("none", 0)])
def test_a_run_augments_so_many_epochs(tiny_folder: Path, plugins: Plugins, augment: Augment, augmented: int) -> None:
    config = TrainConfig(dataset=str(tiny_folder), backbone="tiny", batch_size=4, epochs=5, augment=augment)
    training = new_training(config, prepare(config, plugins), plugins.backbone("tiny", ()), *set_up(config))
    assert training.train_loader.augmented_epochs == augmented
    assert training.val_loader.augmented_epochs == 0


def test_a_run_gone_on_with_less_memory_is_cut_and_told(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = start(tiny_folder, tmp_path / "out", plugins)
    assert next(generator).notes == ()
    generator.close()  # type: ignore[attr-defined]
    monkeypatch.setattr(run, "available_memory", lambda: 10_000)
    generator = start(tiny_folder, tmp_path / "out", plugins)
    (note,) = next(generator).notes
    state, _ = Checkpoints(tmp_path / "out" / "checkpoints").load()
    assert state is not None
    assert state["micro_batch_size"] in (1, 2, 3)
    assert note == f"4 images need more memory than is free; continuing with {state['micro_batch_size']} at once"


def test_processes_of_a_run_share_the_memory_of_their_machine(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "available_memory", lambda: 10_000_000)
    assert next(start(tiny_folder, tmp_path / "alone", plugins)).notes == ()
    monkeypatch.setenv("WORLD_SIZE", "1000")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    (note,) = next(start(tiny_folder, tmp_path / "shared", plugins)).notes
    assert note.startswith("4 images need more memory than is free")


def test_other_settings_are_refused_by_name(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    list(start(tiny_folder, tmp_path / "out", plugins, epochs=1))
    with pytest.raises(CheckpointError, match=r"epochs was 1 and is 3, lr was 0.01 and is 0.2"):
        list(start(tiny_folder, tmp_path / "out", plugins, lr=0.2))


def test_settings_of_place_may_change(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    generator = start(tiny_folder, tmp_path / "out", plugins)
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    assert len(list(start(tiny_folder, tmp_path / "out", plugins, device="auto", checkpoint_minutes=1.0))) == 2


def test_the_same_data_may_be_named_otherwise(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = start(tiny_folder, tmp_path / "out", plugins)
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    monkeypatch.chdir(tiny_folder.parent)
    assert len(list(start(Path(tiny_folder.name), tmp_path / "out", plugins))) == 2


@pytest.mark.parametrize("content", ["nonsense", "[]", "{}", '{"config": 1, "data": {"fingerprint": ""}}'])
def test_a_record_that_is_none_is_told(tiny_folder: Path, tmp_path: Path, plugins: Plugins, content: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"(?s)record is damaged.*run\.json.*another --output"):
        list(start(tiny_folder, tmp_path / "out", plugins))


@pytest.mark.parametrize(("settings", "left"), [({"lr": 0.2}, "checkpoints"), ({}, "checkpoints"), ({}, "history")])
def test_a_run_whose_record_was_removed_is_not_continued(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins, settings: dict[str, Any], left: str
) -> None:
    generator, output = start(tiny_folder, tmp_path / "out", plugins), tmp_path / "out"
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    (output / "run.json").unlink()
    if left == "history":
        (output / "checkpoints" / "last.json").unlink()
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=rf"(?s)run\.json is missing.*{left}.*another --output"):
        list(start(tiny_folder, output, plugins, **settings))
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_two_processes_do_not_share_a_run(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    output = tmp_path / "out"
    code = "import sys, pathlib\nfrom automl_pt.core.locks import locked\n"
    code += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(output / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="this folder is in use by another process"):
            list(start(tiny_folder, output, plugins))
        other.communicate("")
    assert len(list(start(tiny_folder, output, plugins))) == 3
    with locked(output / ".lock", wait=False):
        pass


def test_a_batch_above_the_training_images_names_both_numbers(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins
) -> None:
    with pytest.raises(ConfigError, match=r"at most the number of training images, 24, got 25"):
        list(start(tiny_folder, tmp_path / "out", plugins, batch_size=25))
    assert len(list(start(tiny_folder, tmp_path / "whole", plugins, batch_size=24))) == 3


def test_an_absent_device_fails_before_the_run(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    with pytest.raises(DeviceError, match="'cuda:77'"):
        list(start(tiny_folder, tmp_path / "out", plugins, device="cuda:77"))


@pytest.mark.parametrize("reason", ["pruned", "interrupted"])
def test_an_outer_end_is_recorded_and_gone_on_from(
    tiny_folder: Path, tmp_path: Path, plugins: Plugins, reason: Reason
) -> None:
    generator = start(tiny_folder, tmp_path / "out", plugins)
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    finish(tmp_path / "out", reason)
    assert record(tmp_path / "out")["reason"] == reason
    assert len(list(start(tiny_folder, tmp_path / "out", plugins))) == 2
    finish(tmp_path / "out", reason)
    assert record(tmp_path / "out")["reason"] == "completed"


def test_a_failure_is_recorded_with_its_words(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    def after_step(done: int, batches: int) -> bool:
        raise RuntimeError("the roof fell in")

    from automl_pt.data.prepare import prepare

    config = TrainConfig(dataset=str(tiny_folder), backbone="tiny", epochs=1, batch_size=4, threads=1, device="cpu")
    output = tmp_path / "out"
    output.mkdir()
    data = prepare(config, plugins, manifest=output / "manifest.json")
    with pytest.raises(RuntimeError, match="the roof fell in"):
        list(run.execute(config, output, data=data, plugins=plugins, after_step=after_step))
    assert record(output)["reason"] == "failed"
    assert record(output)["error"] == "RuntimeError: the roof fell in"
    assert len(list(run.execute(config, output, data=data, plugins=plugins))) == 1
    assert record(output)["error"] is None


def test_a_damaged_checkpoint_is_told_in_the_history(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    list(start(tiny_folder, tmp_path / "whole", plugins))
    output = tmp_path / "out"
    generator = start(tiny_folder, output, plugins)
    next(generator)
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    newest = max((output / "checkpoints").glob("last-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    results = list(start(tiny_folder, output, plugins))
    assert [result.epoch for result in results] == [2, 3]
    assert newest.name in results[0].notes[0]
    assert [result.epoch for result in history(output)] == [1, 2, 3]
    assert equal(output, tmp_path / "whole")


def test_keep_last_holds_the_last_epoch(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    best, last = tmp_path / "best", tmp_path / "last"
    settings: dict[str, Any] = {"lr": 0.3, "schedule": "constant", "epochs": 4}
    results = list(start(tiny_folder, best, plugins, **settings))
    list(start(tiny_folder, last, plugins, keep="last", **settings))
    info = json.loads((last / "model.json").read_text())
    assert info["metrics"]["epoch"] == 4
    kept = json.loads((best / "model.json").read_text())["metrics"]["epoch"]
    assert kept == min(results, key=lambda result: result.val_loss).epoch
    assert equal(best, last) == (kept == 4)


def test_going_on_with_other_threads_is_told(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    generator = start(tiny_folder, tmp_path / "out", plugins)
    assert next(generator).notes == ()
    generator.close()  # type: ignore[attr-defined]
    results = list(start(tiny_folder, tmp_path / "out", plugins, threads=2))
    assert "not bit for bit like an uninterrupted run: threads was 1 and is 2" in results[0].notes
    assert results[1].notes == ()


def test_a_split_left_by_a_killed_call_is_not_used_for_other_settings(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", {"": 10})
    run.train(
        str(folder), output=tmp_path / "run", image_size=16, pretrained=False
    )  # never begun, as by a kill while it was prepared
    with pytest.raises(StudyError, match=r"val_fraction was 0.2 and is 0.4"):
        run.train(str(folder), output=tmp_path / "run", val_fraction=0.4, image_size=16, pretrained=False)
    assert (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize(
    "settings", [{"batch_size": 1000}, {"device": "cuda:77"}, {"weights": "absent.safetensors"}, {"val_fraction": 0.99}]
)
def test_a_refused_call_leaves_nothing(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = write_folder(tmp_path / "photos", {"": 3})
    with pytest.raises(AutomlError):
        list(run.train(str(folder), output=tmp_path / "runs" / "one", image_size=16, pretrained=False, **settings))
    assert not (tmp_path / "runs").exists()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "manifest.txt").write_text("mine")
    with pytest.raises(AutomlError):
        list(run.train(str(folder), output=tmp_path / "notes", image_size=16, pretrained=False, **settings))
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["manifest.txt"]


@pytest.mark.parametrize("inside", ["", "train/cat/run", "../photos/run"])
def test_results_are_not_written_among_the_images(tmp_path: Path, inside: str) -> None:
    folder = write_folder(tmp_path / "photos", {"train": 3})
    before = sorted(folder.rglob("*"))
    with pytest.raises(OutputError, match=r"(?s)in the folder of images.*is in .*photos.*with --output"):
        run.train(str(folder), output=folder / inside, image_size=16, pretrained=False)
    assert sorted(folder.rglob("*")) == before


def test_another_run_is_refused_before_its_epochs_are_shown(tiny_folder: Path, tmp_path: Path, plugin: Path) -> None:
    first = finished(command(tiny_folder, tmp_path / "out", plugin, epochs=1), tmp_path / "cache")
    assert (first[0], "epoch 1:" in first[1]) == (0, True)
    code, output, errors = finished(
        command(tiny_folder, tmp_path / "out", plugin, epochs=1, lr=0.5), tmp_path / "cache"
    )
    assert (code, output) == (1, "")
    assert "lr was 0.01 and is 0.5" in errors


def test_a_run_is_named_after_its_data_also_where_they_are_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    for dataset in (".", "../photos", "photos.zip"):
        assert default_output(TrainConfig(dataset=dataset)) == Path("runs/photos-resnet18")
