from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the tests use no network

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Picture

from automl_pt.config import TrainConfig, make
from automl_pt.core.errors import InvalidDatasetError, NotLabeledDatasetError
from automl_pt.data.prepare import prepare
from automl_pt.images.decode import UnreadableImage
from automl_pt.plugins.manager import load_plugins
from automl_pt.testing import check_dataset
from automl_pt_huggingface import download, load, parse

datasets.disable_progress_bars()

COLOURS = ("blue", "red")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(label: int, index: int) -> Picture.Image:
    pixels = np.random.default_rng([label, index]).integers(0, 90, (12, 10, 3), dtype=np.uint8)
    pixels[..., 2 * label] += 120
    return Picture.fromarray(pixels)


def part(count: int, start: int = 0, **more: list[object]) -> Dataset:
    labels = [index % 2 for index in range(count)]
    columns = {"image": [picture(label, start + index) for index, label in enumerate(labels)], "label": labels, **more}
    features = {
        "image": Image(),
        "label": ClassLabel(names=["red", "blue"]),
        **{name: Value("string") for name in more},
    }
    return Dataset.from_dict(columns, features=Features(features))


def saved(tmp_path: Path, what: Dataset | DatasetDict) -> Path:
    what.save_to_disk(tmp_path / "set")
    return tmp_path / "set"


def test_splits_labels_and_pixels(tmp_path: Path) -> None:
    root = saved(tmp_path, DatasetDict(train=part(6), validation=part(4, 50), test=part(2, 90), extra=part(2, 99)))
    data = load(root)
    assert data.classes == COLOURS
    # red is the library's class 0, and our class 1, as names are sorted
    assert list(data.labels)[:4] == [1, 0, 1, 0]
    assert [list(data.splits or ()).count(split) for split in ("train", "val", "test", None)] == [6, 4, 2, 2]
    assert data.names is not None
    at = data.names.index("train/000000003")
    assert np.array_equal(data.images[at], np.asarray(picture(1, 3)))
    assert np.array_equal(data.images[at : at + 1][0], data.images[at])
    assert data.notes == [
        "columns: image 'image', label 'label'; splits extra, test, train, validation",
        "2 rows of extra count for training: no splits by their names",
    ]


def test_the_dataset_keeps_the_contract(tmp_path: Path) -> None:
    check_dataset("huggingface", root=saved(tmp_path, DatasetDict(train=part(8), validation=part(4, 50))))


def test_a_set_without_splits_is_split_by_the_tool(tmp_path: Path) -> None:
    root = saved(tmp_path, part(20))
    settings = make(TrainConfig, {"dataset": "huggingface", "root": str(root), "image_size": 8})
    data = prepare(settings, load_plugins(), manifest=tmp_path / "manifest.json")
    assert {split: len(data.manifest.indices(split)) for split in ("train", "val", "test")} == {
        "train": 16,
        "val": 4,
        "test": 0,
    }
    assert data.pixels("train", 8).images.shape == (16, 3, 8, 8)
    again = prepare(settings, load_plugins(), manifest=tmp_path / "manifest.json")
    assert again.manifest == data.manifest


def test_texts_serve_as_labels_and_rows_without_are_left_out(tmp_path: Path) -> None:
    root = saved(tmp_path, part(4, kind=["x", "", "y", None]))
    data = load(Path(f"{root}?label=kind"))
    assert data.classes == ("x", "y")
    assert list(data.names or ()) == ["row/000000000", "row/000000002"]
    assert list(data.left_out) == [(f"{root}: 2 rows", "no label")]


def test_images_beside_the_table_are_read_from_their_files(tmp_path: Path) -> None:
    picture(0, 0).save(tmp_path / "a.png")
    table = {"image": [str(tmp_path / "a.png")] * 2, "label": ["a", "b"]}
    root = saved(tmp_path, Dataset.from_dict(table).cast_column("image", Image()))
    assert np.array_equal(load(root).images[1], np.asarray(picture(0, 0)))


def test_a_damaged_image_is_named_and_may_be_left_out(tmp_path: Path) -> None:
    cells = part(20).cast_column("image", Image(decode=False))
    broken = cells.map(
        lambda row, index: {"image": {"bytes": b"junk", "path": None}} if index == 7 else row, with_indices=True
    )
    root = saved(tmp_path, broken)
    with pytest.raises(UnreadableImage, match="row/000000007"):
        load(root).images[7]
    settings = {"dataset": "huggingface", "root": str(root), "image_size": 8, "max_bad": 0.2}
    data = prepare(make(TrainConfig, settings), load_plugins())
    assert [item.name for item in data.manifest.left_out] == ["row/000000007"]


@pytest.mark.parametrize(
    ("columns", "kind", "message"),
    [
        ({"label": ["a", "b"]}, InvalidDatasetError, "the column of images is unclear"),
        ({"image": ["x", "y"], "label": ["a", "b"]}, InvalidDatasetError, "name it: --root NAME"),
    ],
)
def test_unclear_columns_are_refused(
    tmp_path: Path, columns: dict[str, list[str]], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        load(saved(tmp_path, Dataset.from_dict(columns)))


def test_an_unlabelled_set_is_not_labelled(tmp_path: Path) -> None:
    with pytest.raises(NotLabeledDatasetError, match="the column of labels is unclear"):
        load(saved(tmp_path, part(2).remove_columns("label")))
    with pytest.raises(NotLabeledDatasetError, match="nothing in the column 'kind'"):
        load(Path(f"{saved(tmp_path, part(2, kind=['', '']))}?label=kind"))


def test_what_is_no_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match="no --root"):
        load(None)
    with pytest.raises(InvalidDatasetError, match="unknown colour; known are image, label, config, revision"):
        load(Path("x?colour=red"))
    with pytest.raises(InvalidDatasetError, match="add --download to fetch"):
        load(Path("owner/name"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidDatasetError, match="a folder written with save_to_disk"):
        load(tmp_path / "empty")


def test_a_set_of_the_hub_is_kept_and_needs_no_network(cache: Path) -> None:
    part(4).save_to_disk(parse(Path("owner/name")).folder)
    download(Path("owner/name"))
    assert len(load(Path("owner/name"))) == 4
    assert parse(Path("owner/name")).folder.is_relative_to(cache)
    assert parse(Path("owner/name?revision=1")).folder != parse(Path("owner/name")).folder


def test_a_hub_out_of_reach_is_said() -> None:
    with pytest.raises(InvalidDatasetError, match="a set must be on the Hugging Face hub, and reachable"):
        download(Path("owner/no-such-set"))
