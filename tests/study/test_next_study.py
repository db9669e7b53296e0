"""A search after images were added: a new study that starts from the old one, and is compared with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import draw_image, write_folder
from test_after import plugins_in

from automl_pt import load_model
from automl_pt import search as search_api
from automl_pt.core.errors import ConfigError, StudyError, UnknownNameError
from automl_pt.data.manifest import Manifest
from automl_pt.study.events import Notice, TrialStarted
from automl_pt.study.extras.descriptions import extras_lines
from automl_pt.study.records import StudyResult

GIVEN: dict[str, Any] = {
    "backbones": ("tiny",),
    "epochs": 1,
    "batch_sizes": (4, 8),
    "lr": (0.01, 0.3),
    "test_fraction": 0.25,
}
MACHINE: dict[str, Any] = {"threads": 1, "workers": 0, "pruner": "none", "report": False, "trials": 2}


def flat(root: Path) -> Path:
    """Return images of three classes in one folder each, without splits."""
    made = write_folder(root / "made", {"train": 12})
    shutil.move(made / "train", root / "photos")
    return root / "photos"


def add(photos: Path, count: int = 4) -> None:
    for label, folder in enumerate(sorted(photos.iterdir())):
        for index in range(count):
            draw_image(label, 5000 + index, 16).save(folder / f"new-{index}.png")


def searched(photos: Path, **settings: Any) -> tuple[StudyResult, list[Any]]:
    """Search in the working folder; return the result and the events."""
    plugins_in(Path.cwd())
    told: list[Any] = []
    plugins = (str(Path.cwd() / "tiny_plugin.py"),)
    return search_api(str(photos), plugins=plugins, on_event=told.append, **{**MACHINE, **settings}), told


def notices(told: list[Any]) -> list[str]:
    return [event.text for event in told if isinstance(event, Notice)]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyResult, StudyResult, list[Any]]:
    """Return a folder with a study, the study after images were added, and what the second search reported."""
    root = tmp_path_factory.mktemp("grown")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        photos = flat(root)
        first, _ = searched(photos, **GIVEN)
        before = content(root / "studies" / "photos")
        add(photos)
        second, told = searched(photos)
        assert content(root / "studies" / "photos") == before
    return root, first, second, told


@pytest.fixture
def here(grown: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of that folder, which is the working folder."""
    shutil.copytree(grown[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_added_images_begin_a_new_study_and_the_line_says_what_it_takes(grown: Any) -> None:
    root, first, second, told = grown
    assert (first.name, second.name) == ("photos", "photos-2")
    assert notices(told)[0] == (
        "new study photos-2, from photos (12 images were added since): it keeps that study's split of the images and "
        "its settings (epochs 1, random weights, test fraction 0.25, learning rate 0.01:0.3, batch sizes 4, 8, "
        "backbone tiny), tries "
        "its best ones early, and is compared with its model; --name photos opens photos itself"
    )
    asked = json.loads((root / "studies" / "photos-2" / "study.json").read_text())["asked"]
    assert {name: asked[name] for name in ("epochs", "test_fraction")} == {"epochs": 1, "test_fraction": 0.25}


def test_every_image_keeps_its_split_and_the_new_ones_are_divided(grown: Any) -> None:
    old, new = (Manifest.load(grown[0] / "studies" / name / "manifest.json") for name in ("photos", "photos-2"))
    before = {entry.name: entry.split for entry in old.entries}
    after = {entry.name: entry.split for entry in new.entries}
    assert {name: after[name] for name in before} == before
    assert {after[name] for name in after.keys() - before} == {"train", "val", "test"}


def test_the_first_trial_after_the_default_has_the_best_settings_of_before(grown: Any) -> None:
    _, first, second, told = grown
    best = min((trial for trial in first.trials if trial.state == "COMPLETE"), key=lambda trial: trial.cost)
    started = {event.number: event.params for event in told if isinstance(event, TrialStarted)}
    if best.params == first.trials[0].params:
        assert "the earlier study's best settings are trial 0 itself" in " ".join(notices(told))
    else:
        assert started[1] == best.params


def test_the_models_are_compared_on_images_that_neither_has_trained_on(grown: Any) -> None:
    root, _, second, _ = grown
    found = second.made["earlier"]
    manifest = Manifest.load(root / "studies" / "photos-2" / "manifest.json")
    tested = [entry for entry in manifest.entries if entry.split == "test"]
    plugins = plugins_in(root)
    right = []
    for name in ("photos-2", "photos"):
        model = load_model(root / "studies" / name / "model", plugins=plugins)
        shown = model.predict([root / "photos" / entry.name for entry in tested]).argmax(1)
        right.append(np.array([shown[at] == entry.label for at, entry in enumerate(tested)]))
    assert (found["images"], found["split"], found["trained_on"]) == (len(tested), "test", 0)
    assert (found["accuracy"], found["earlier_accuracy"]) == (right[0].mean(), right[1].mean())
    assert found["only_first_right"] == (right[0] & ~right[1]).sum()
    assert found["only_second_right"] == (~right[0] & right[1]).sum()
    assert extras_lines(second.made)[0].startswith(f"compared with photos on {len(tested)} test images that neither")


def test_the_same_command_opens_the_newest_and_a_name_the_one_it_names(here: Path) -> None:
    again, told = searched(here / "photos")
    assert (again.name, len(again.trials)) == ("photos-2", 2)
    assert not [text for text in notices(told) if "new study" in text]
    old, told = searched(here / "photos", name="photos", **GIVEN)
    assert old.name == "photos"
    assert "12 images were added since the split was frozen and are not used" in " ".join(notices(told))
    add(here / "photos", 5)
    third, told = searched(here / "photos")
    assert third.name == "photos-3"
    assert "from photos-2 (3 images were added since)" in notices(told)[0]


def test_its_weights_are_a_start_if_asked(here: Path) -> None:
    found, told = searched(here / "photos", warm_start="photos-2", warm_weights=True)
    assert found.name == "photos-3"
    assert "starts from its weights" in notices(told)[0]
    asked = json.loads((here / "studies" / "photos-3" / "study.json").read_text())["asked"]
    assert asked["weights"] == "studies/photos-2/model"
    again, _ = searched(here / "photos", warm_start="photos-2")
    assert again.name == "photos-3"


def test_removed_images_alone_are_an_error_that_names_the_way_on(here: Path) -> None:
    gone = Manifest.load(here / "studies" / "photos-2" / "manifest.json").entries[0]
    (here / "photos" / gone.name).unlink()
    with pytest.raises(StudyError, match="--warm-start"):
        searched(here / "photos")
    found, _ = searched(here / "photos", warm_start="photos-2")
    assert found.name == "photos-3"


def test_other_images_under_the_same_name_are_no_growth(here: Path) -> None:
    (here / "elsewhere").mkdir()
    other = flat(here / "elsewhere")
    with pytest.raises(StudyError, match="images of this study have changed"):
        searched(other, **GIVEN)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"warm_start": "fotos"}, UnknownNameError, "photos"),
        ({"warm_weights": True, "name": "other"}, ConfigError, "no earlier study"),
        ({"warm_weights": True, "warm_start": "photos", "backbones": ("other",)}, ConfigError, "tiny"),
        ({"warm_weights": True, "weights": "x", "name": "other"}, ConfigError, "where the weights come from"),
        ({"warm_weights": True, "warm_start": "photos", "name": "photos-2"}, StudyError, "was not started so"),
        ({"warm_start": "photos-2", "name": "photos"}, StudyError, "no other study"),
    ],
)
def test_what_cannot_be_a_start_is_refused(settings: Any, error: type[Exception], said: str, here: Path) -> None:
    with pytest.raises(error, match=said):
        searched(here / "photos", **settings)
    assert sorted(path.name for path in (here / "studies").iterdir()) == ["photos", "photos-2"]
