"""Which images `evaluate` measures, and which of the model's classes each label is."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from conftest import CLASSES, draw_image
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_model

from automl_pt.config import SearchConfig, make
from automl_pt.core.errors import InvalidDatasetError, StudyError, UsageError
from automl_pt.data.manifest import Manifest
from automl_pt.data.prepare import prepare
from automl_pt.layouts.class_names import as_read, composed, matched
from automl_pt.model.evaluate import evaluate
from automl_pt.model.labelled import open_labelled
from automl_pt.model.load import load_model
from automl_pt.plugins.manager import Plugins
from automl_pt.runs import run
from automl_pt.study.executor.base import Caller
from automl_pt.study.extras.evaluator import ModelEvaluator

COMPOSED = "\u00c4pfel"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


def draw(root: Path, count: int, start: int = 0, names: tuple[str, ...] = CLASSES) -> Path:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(start, start + count):
            draw_image(label, index).save(root / name / f"{index:03}.png")
    return root


def train(data: Path, output: Path, plugins: Plugins) -> list[Any]:
    settings: dict[str, Any] = {"backbone": "tiny", "epochs": 1, "batch_size": 4, "threads": 1, "device": "cpu"}
    return list(run.train(str(data), output=output, plugins=plugins, **settings))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> tuple[Path, Path, Manifest]:
    """Return a folder of 10 images a class without splits, a run on it, and its split: 24 train, 6 val."""
    root = tmp_path_factory.mktemp("trained")
    train(draw(root / "data", 10), root / "run", plugins)
    return root / "data", root / "run", Manifest.load(root / "run/manifest.json")


@pytest.mark.parametrize(
    ("new", "train", "val", "split", "measured"),
    [
        (12, 0, 2, "unseen", 14),
        (12, 2, 2, "unseen", 14),
        (3, 24, 6, "unseen", 9),
        (12, 2, 0, "all", 14),
        (0, 24, 6, "val", 6),
        (0, 2, 6, "val", 6),
        (12, 0, 0, "all", 12),
    ],
)
def test_new_images_count_beside_those_that_the_model_was_not_trained_on(
    trained: tuple[Path, Path, Manifest],
    plugins: Plugins,
    tmp_path: Path,
    new: int,
    train: int,
    val: int,
    split: str,
    measured: int,
) -> None:
    data, _, manifest = trained
    found = draw(tmp_path / "new", new // 3, 500)
    wanted = {"train": train, "val": val}
    for entry in manifest.entries:
        if wanted[entry.split] > 0:
            wanted[entry.split] -= 1
            target = found / entry.name.replace("/", "/known-")
            shutil.copy(data / entry.name, target)
    images = open_labelled(str(found), manifest.classes, plugins, manifest=manifest)
    assert (images.split, len(images.labels)) == (split, measured)
    total = new + train + val
    part = f"{measured} of {total} images are evaluated: split {split}"
    assert (part in images.notes) == (measured < total)
    if train or val:
        (said,) = (note for note in images.notes if note.startswith("splits are those the model was trained with: "))
        assert all(f"{n} {kind}" in said for n, kind in ((train, "train"), (val, "val")) if n)
        assert (f"; {new} images here were in none of them" in said) == (new > 0)


def test_the_unseen_images_of_data_with_splits_of_their_own(
    tiny_folder: Path, plugins: Plugins, trained: tuple[Path, Path, Manifest]
) -> None:
    images = open_labelled(str(tiny_folder), CLASSES, plugins, split="unseen")
    assert len(images.labels) == 24
    assert images.notes[-1] == "24 of 48 images are evaluated: split unseen"
    data, output, manifest = trained
    shutil.rmtree(tiny_folder / "val")
    shutil.rmtree(tiny_folder / "test")
    with pytest.raises(InvalidDatasetError, match="'unseen' of .*: none"):
        open_labelled(str(tiny_folder), CLASSES, plugins, split="unseen")
    with pytest.raises(UsageError, match="which has a test split"):
        _calibrate(tiny_folder, output, plugins)


def _calibrate(root: Path, output: Path, plugins: Plugins) -> None:
    draw(root / "test", 2, 900)
    evaluate(output, str(root), plugins, split="unseen", calibrate=True, device="cpu")


@pytest.mark.parametrize(("mine", "theirs"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_class_is_the_same_in_any_spelling_of_unicode(
    mine: str, theirs: str, tmp_path: Path, plugins: Plugins
) -> None:
    results = train(draw(tmp_path / "one", 5, names=(mine, "b")), tmp_path / "run", plugins)
    assert json.loads((tmp_path / "run/model.json").read_text())["classes"] == ["b", COMPOSED]
    assert any("Unicode" in note for note in results[0].notes) == (mine == DECOMPOSED)
    found = evaluate(tmp_path / "run", str(draw(tmp_path / "two", 2, 50, (theirs, "b"))), plugins, device="cpu")
    assert found.scores.images == 4
    # the same files under names in the other form, as another system or an archive has them
    for folder in sorted((tmp_path / "one").iterdir()):
        folder.rename(folder.with_name(theirs if folder.name == mine else folder.name))
    assert run.history(tmp_path / "run")
    assert train(tmp_path / "one", tmp_path / "run", plugins) == []
    (tmp_path / "one" / theirs / "000.png").unlink()
    with pytest.raises(StudyError, match="1 vanished"):
        train(tmp_path / "one", tmp_path / "run", plugins)


def test_classes_of_a_model_in_another_spelling_are_found(tmp_path: Path, plugins: Plugins) -> None:
    data = draw(tmp_path / "d", 2, names=("1.0", COMPOSED, "none"))
    images = open_labelled(str(data), (DECOMPOSED, "1", "none"), plugins)
    assert images.labels.tolist() == [1, 1, 2, 2, 0, 0]
    assert any(note.startswith("2 class names spelled differently in the model: ") for note in images.notes)
    assert open_labelled(str(data), ("1.0", COMPOSED, "none"), plugins).for_model(
        ("1.0", COMPOSED, "none"), ("none", DECOMPOSED, "1")
    ).labels.tolist() == [2, 2, 0, 0, 1, 1]
    with pytest.raises(InvalidDatasetError, match="only in the data: none"):
        open_labelled(str(data), (DECOMPOSED, "1", "2"), plugins)


def test_the_first_result_of_a_training_tells_what_was_left_out(tmp_path: Path, plugins: Plugins) -> None:
    data = draw(tmp_path / "d", 4)
    for index in range(3):
        (data / "red" / f"{index}.HEIC").write_bytes(b"x")
    (result,) = train(data, tmp_path / "run", plugins)
    ignored = "ignored: 3 .HEIC (HEIC is not read; `magick mogrify -format png *.HEIC` converts it to PNG)"
    assert f"{ignored}; `automl-pt check` lists them" in result.notes


def test_test_images_that_cannot_be_read_are_counted(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    (tiny_folder / "test" / "red" / "000.png").write_text("no image")
    config = make(SearchConfig, {"dataset": str(tiny_folder), "backbones": ["tiny"], "max_bad": 0.1, "device": "cpu"})
    data = prepare(config, plugins, manifest=tmp_path / "manifest.json")
    model = load_model(make_model(tmp_path / "model", plugins), device="cpu", plugins=plugins)
    said: list[str] = []
    assert len(ModelEvaluator(config, data, plugins, Caller(tell=said.append)).score(model, "test").labels) == 11
    assert said == ["1 of 12 test images cannot be read and are not evaluated"]


@given(st.lists(st.sampled_from(["\u00c4", "A\u0308", "1", "1.0", "-2", "-2.00", "x", "1.5", "1.", ".0", ""])))
def test_names_are_matched_as_a_reader_does(names: list[str]) -> None:
    titles, said = composed(names)
    assert set(titles) == set(names)
    assert bool(said) == ("A\u0308" in names)
    assert all(unicodedata.is_normalized("NFC", title) for title in titles.values())
    found = matched(names, ["\u00c4", "1", "-2", "x"])
    assert found == {name: as_read(name) for name in names if as_read(name) in ("\u00c4", "1", "-2", "x")}
    assert matched(["1.00"], ["1", "1.0"]) == {}  # two readings are none
