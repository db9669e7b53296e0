"""Folders for splits under the names that people give them, told from class folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_pt.core.errors import AutomlError, InvalidDatasetError, NotLabeledDatasetError
from automl_pt.dataset import LabeledImages, Split
from automl_pt.layouts.layouts import open_path
from automl_pt.layouts.split_words import Kind, certain, together


def plant(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"an image, never decoded here")
    return root


def sorted_into(*splits: str, classes: tuple[str, ...] = ("cats", "dogs")) -> Iterator[str]:
    return (f"{split}/{name}/{index}.png" for split in splits for name in classes for index in range(2))


def splits_of(data: LabeledImages) -> dict[str, Split | None]:
    """Return the split of each folder at the top, each of whose images must have the same."""
    found: dict[str, set[Split | None]] = {}
    for name, split in zip(data.names or (), data.splits or (), strict=True):
        found.setdefault(name.split("/")[0], set()).add(split)
    return {top: split for top, (split,) in found.items()}


@pytest.mark.parametrize(
    ("folders", "wanted"),
    [
        (("train", "dev"), ("train", "val")),
        (("train", "dev", "test"), ("train", "val", "test")),
        (("training_set", "test_set"), ("train", "test")),
        (("train-set", "val-set"), ("train", "val")),
        (("trainset", "testset"), ("train", "test")),
        (("TrainingData", "TestData"), ("train", "test")),
        (("Training Images", "Test Images"), ("train", "test")),
        (("train_images", "test_images"), ("train", "test")),
        (("seg_train", "seg_test"), ("train", "test")),
        (("x_train", "x_val", "x_test"), ("train", "val", "test")),
        (("cats_dogs_train", "cats_dogs_test"), ("train", "test")),
        (("train2017", "val2017"), ("train", "val")),
        (("train", "test1"), ("train", "test")),
        (("TRAIN", "VALIDATE"), ("train", "val")),
        (("trainval", "test"), ("train", "test")),
        (("train", "val", "holdout"), ("train", "val", "test")),
        (("train", "test", "hold-out"), ("train", "test", "val")),
        (("train", "test", "eval"), ("train", "test", "val")),
    ],
)
@pytest.mark.parametrize("inner", ["", "same", "images"])
@pytest.mark.parametrize("outer", ["", "set/", "set/set/"])
def test_splits_by_any_usual_name(
    tmp_path: Path, folders: tuple[str, ...], wanted: tuple[Split, ...], inner: str, outer: str
) -> None:
    within = {"": "{0}", "same": "{0}/{0}", "images": "{0}/images"}[inner]
    data = open_path(plant(tmp_path, *sorted_into(*(outer + within.format(folder) for folder in folders))))
    assert data.classes == ("cats", "dogs")
    assert splits_of(data) == dict(zip(folders, wanted, strict=True))
    (said,) = (note for note in data.notes if "splits as given" in note)
    assert all(repr(folder) in said for folder in folders)
    assert (f"{folders[0]}/" in said) == bool(inner)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train", "holdout"], "'holdout' could be validation or test images"),
        (["train", "eval"], "'eval' could be validation or test images"),
        (["train", "eval", "holdout"], "'eval', 'holdout' could be"),
        (["train", "val", "test", "holdout"], "'holdout' could be"),
        (["fold0", "fold1", "fold2"], "parts for cross-validation or classes"),
        (["fold_1", "fold_2"], "parts for cross-validation or classes"),
        (["split_0", "split_1"], "parts for cross-validation or classes"),
        (["train", "fold_1"], "parts for cross-validation or classes"),
        (["train", "extra"], "train may be splits, and beside them extra may be classes"),
        (["train", "test", "extra"], "beside them extra may be classes"),
        (["train", "val", "dev"], "two folders have the same split"),
        (["train", "train_1"], "two folders have the same split"),
        (["train", "unlabeled"], "a folder of images to predict contains class folders"),
        (["dev", "test"], "the folder has splits but no train folder"),
    ],
)
def test_folders_that_can_be_read_two_ways_are_refused(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(InvalidDatasetError, match=said):
        open_path(plant(tmp_path, *sorted_into(*names)))


@pytest.mark.parametrize(
    ("names", "kind", "said"),
    [
        (["train/1.png", "dev/1.png"], NotLabeledDatasetError, "2 images in no class folder"),
        (["train_images/1.png", "test_images/1.png"], NotLabeledDatasetError, "2 images in no class folder"),
        (["train/1.png", "test/1.png", "masks/1.png"], InvalidDatasetError, "masks may be classes"),
        ([*sorted_into("train"), "pictures_of_all/1.png"], InvalidDatasetError, "pictures_of_all may be classes"),
        ([*sorted_into("train"), "dev/1.png"], NotLabeledDatasetError, "dev: 1 images in no class folder"),
        (["a/train/1.png", "a/test/1.png", "b/train/1.png", "b/1.png"], InvalidDatasetError, "splits beside cl"),
        (["a/train/1.png", "a/test/1.png", "b/train/1.png", "b/more/1.png"], InvalidDatasetError, "b/more may be cl"),
    ],
)
def test_doubtful_layouts_are_refused(tmp_path: Path, names: list[str], kind: type[AutomlError], said: str) -> None:
    with pytest.raises(kind, match=said):
        open_path(plant(tmp_path, *names))


@pytest.mark.parametrize("flat", ["test", "test1", "test/test", "pred", "seg_pred/seg_pred", "unlabeled", "holdout"])
def test_images_without_labels_beside_splits_are_left_out_and_said(tmp_path: Path, flat: str) -> None:
    train = "seg_train/seg_train" if flat.startswith("seg") else "train"
    data = open_path(plant(tmp_path, *sorted_into(train, train.replace("train", "val")), f"{flat}/1.png"))
    assert set(data.splits or ()) == {"train", "val"}
    assert f"1 image is in no class folder and ignored: {flat}/1.png" in data.notes


def test_splits_within_each_class_folder_are_taken(tmp_path: Path) -> None:
    data = open_path(plant(tmp_path, *sorted_into("cats", "dogs", classes=("train", "dev"))))
    assert data.classes == ("cats", "dogs")
    assert {name.split("/")[1]: split for name, split in zip(data.names or (), data.splits or (), strict=True)} == {
        "train": "train",
        "dev": "val",
    }
    assert data.notes == ("splits as given in each class folder: train is 'train', val is 'dev'",)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (list(sorted_into("a", "b")), "8 images in cats, dogs; if 'a', 'b' are splits and not classes"),
        (list(sorted_into("Trainingsdaten", "Testdaten")), "if 'Testdaten', 'Trainingsdaten' are splits"),
        (["animals/cat/1.png", "animals/dog/1.png", "cars/van/1.png"], "3 images in cat, dog, van"),
        (["train/1.png", "car/1.png", "plane/1.png"], None),
        (["test/1.png", "control/1.png"], None),
        (["test_tube/1.png", "bullet_train/1.png"], None),
        (["valid/1.png", "invalid/1.png"], None),
        (["a/1.png", "a/deep/2.png", "b/1.png"], None),
    ],
)
def test_classes_stay_classes_and_doubts_are_said(tmp_path: Path, names: list[str], note: str | None) -> None:
    data = open_path(plant(tmp_path, *names))
    assert data.splits is None
    assert set(data.classes) == {name.split("/")[0] for name in names}
    assert [note in said for said in data.notes] == [True] if note else data.notes == ()


@given(st.sampled_from(["train", "val", "test", "eval"]), st.sampled_from(["", "_set", "-images", " data", "2017"]))
def test_a_name_means_the_same_in_any_letters_and_form(word: str, end: str) -> None:
    kinds: dict[str, Kind] = {"train": "train", "val": "val", "test": "test", "eval": "either"}
    for name in (word + end, word.upper() + end.upper(), word.title() + end.title()):
        assert certain(name) == kinds[word]


@given(st.text(max_size=30))
def test_any_text_can_be_asked_about(text: str) -> None:
    assert set(together([text, "train"])) <= {text, "train"}
