"""Cross-validation of the winner's settings: exact, resumable, and a fold that fails costs no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import write_folder
from test_after import config_of, plugins_in, search

from automl_pt import load_model
from automl_pt.cli.report import command as report
from automl_pt.config import TrainConfig, make
from automl_pt.core.errors import InvalidDatasetError
from automl_pt.data.folds import fold_data, folds_of
from automl_pt.data.prepare import prepare
from automl_pt.model.directory import read_info
from automl_pt.model.intervals import over_folds
from automl_pt.model.labelled import manifest_of
from automl_pt.runs.run import execute
from automl_pt.study.extras.descriptions import extras_lines

#: fails once, in the first training of the fold whose run directory is named by the file
FRAGILE = """
import pathlib
from torch import nn
from automl_pt import Backbone, hookimpl

class Fragile(nn.Sequential):
    def forward(self, images):
        mark = pathlib.Path(__file__).with_name("fail")
        begun = len(list(mark.parent.glob("study/folds/*/*/run.json")))
        if self.training and mark.exists() and mark.read_text() == str(begun):
            mark.unlink()
            raise ValueError("a fold that fails")
        return super().forward(images)

def build(num_classes, pretrained):
    return Fragile(nn.Flatten(), nn.Linear(3 * 64, num_classes))

@hookimpl
def register_backbones():
    return [Backbone("fragile", build, image_size=8)]
"""


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any, list[str]]:
    """Return a folder of images, a study with three folds, its result, and what was said."""
    root = tmp_path_factory.mktemp("folded")
    images = write_folder(root / "images", {"train": 8, "val": 4, "test": 4})
    result, said = search(images, root / "study", folds=3, trials=1, keep_models=2)
    return images, root / "study", result, said


def test_each_fold_is_measured_on_what_it_has_not_seen_and_the_ensemble_is_their_mean(folded: Any) -> None:
    images, study, result, said = folded
    found, plugins = result.made["folds"], plugins_in(study.parent)
    config = config_of(images, study)
    data = prepare(config, plugins, manifest=study / "manifest.json")
    assert [one["images"] for one in found["folds"]] == [len(fold) for fold in folds_of(data, 3)] == [12, 12, 12]
    shares = [one["accuracy"] for one in found["folds"]]
    accuracy, interval = over_folds(shares, 0.5)
    assert (found["accuracy"], found["interval"]) == (accuracy, list(interval))
    assert [text for text in said if "held out" in text][0] == "fold 1 of 3: 24 images to train on, 12 held out"
    model = load_model(study / "model-folds", plugins=plugins)
    assert len(model.info.members) == 3
    counts = manifest_of(study / "model-folds").counts()
    assert counts == {"train": 36, "val": 0, "test": 12}
    files = sorted((images / "test").rglob("*.png"))
    labels = np.array([model.classes.index(file.parent.name) for file in files])
    assert found["test"]["accuracy"] == (model.predict(files).argmax(1) == labels).mean()
    assert (
        "corrected t interval (Nadeau and Bengio), because the folds are not independent"
        in extras_lines(result.made)[0]
    )


def test_a_fold_is_a_plain_training_of_the_winners_settings(folded: Any, tmp_path: Path) -> None:
    images, study, result, _ = folded
    plugins = plugins_in(study.parent)
    data = prepare(config_of(images, study), plugins, manifest=study / "manifest.json")
    info, _ = read_info(study / "trials" / str(result.best.number))
    config = make(TrainConfig, {**info.config, "keep": "last", "patience": 99})
    for epoch in execute(config, tmp_path / "run", data=fold_data(data, 3, 2), plugins=plugins):
        if epoch.epoch == info.metrics["epoch"]:
            break
    alone = load_model(tmp_path / "run", plugins=plugins).network.state_dict()
    member = load_model(study / "model-folds", plugins=plugins).network.members[1].state_dict()
    assert all(alone[name].equal(member[name]) for name in alone)


def test_report_and_json_show_them(folded: Any, runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    _, study, result, _ = folded
    monkeypatch.setenv("COLUMNS", "80")
    shown = runner.invoke(report, [str(study)], standalone_mode=False).output
    assert "folds: accuracy" in shown
    assert max(map(len, shown.splitlines())) <= 80 or "model-folds" in max(shown.splitlines(), key=len)
    plain = json.loads((study / "result.json").read_text())
    assert plain["made"]["folds"]["interval"] == result.made["folds"]["interval"]


def test_what_is_done_is_not_done_again_and_other_folds_are(folded: Any) -> None:
    images, study, first, _ = folded
    again, said = search(images, study, folds=3, trials=1, keep_models=2)
    assert (again.made["folds"], said) == (first.made["folds"], [])


def test_too_few_images_are_refused_before_the_first_trial(tmp_path: Path) -> None:
    images = write_folder(tmp_path / "images", {"train": 4})
    with pytest.raises(InvalidDatasetError, match="too few images for 5 folds"):
        search(images, tmp_path / "study", folds=5)
    assert not (tmp_path / "study").exists()


def test_a_fold_that_fails_loses_no_other_and_is_tried_again(tmp_path: Path) -> None:
    images = write_folder(tmp_path / "images", {"train": 6, "val": 3})
    plugins_in(tmp_path)
    (tmp_path / "fragile.py").write_text(FRAGILE)
    given: dict[str, Any] = {
        "backbones": ("fragile",),
        "plugins": (str(tmp_path / "fragile.py"),),
        "folds": 3,
        "trials": 1,
    }
    search(images, tmp_path / "study", **{**given, "folds": None})
    (tmp_path / "fail").write_text("2")
    result, said = search(images, tmp_path / "study", **given)
    found = result.made["folds"]
    assert [one["fold"] for one in found["folds"]] == [1, 3]
    assert "a fold that fails" in found["failed"]["2"]
    assert any(text.startswith("fold 2 of 3 failed, the others do not: ") for text in said)
    assert len(found["interval"]) == 2
    assert "over 2 of 3 folds" in " ".join(extras_lines(result.made))
    whole, _ = search(images, tmp_path / "study", **given)
    assert [one["fold"] for one in whole.made["folds"]["folds"]] == [1, 2, 3]
    assert whole.made["folds"]["failed"] == {}


def test_killed_in_the_middle_of_a_fold_it_ends_as_undisturbed(folded: Any, tmp_path: Path) -> None:
    images, study, first, _ = folded
    plugins_in(tmp_path)
    plain = config_of(images, tmp_path / "study", folds=3, trials=1, keep_models=2).model_dump_json()
    program = (
        "import sys; from pathlib import Path; from automl_pt.api.search import run_search;"
        "from automl_pt.config import SearchConfig; import json;"
        "config = SearchConfig(**json.loads(sys.argv[1])); run_search(config, Path(sys.argv[2]))"
    )
    words = [sys.executable, "-c", program, plain, str(tmp_path / "study")]
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"})
    second = tmp_path / "study" / "folds"
    deadline = time.monotonic() + 100
    while not list(second.glob("*/2/run.json")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result, _ = search(images, tmp_path / "study", folds=3, trials=1, keep_models=2)
    assert result.made["folds"]["folds"] == first.made["folds"]["folds"]
    one, other = (
        load_model(place / "model-folds", plugins=plugins_in(tmp_path)) for place in (study, tmp_path / "study")
    )
    pairs = zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True)
    assert all(first.equal(second) for first, second in pairs)
