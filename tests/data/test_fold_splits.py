"""Folds of training and validation images: whole groups, each class in each, by the seed alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_pt.core.errors import InvalidDatasetError
from automl_pt.data.cache.cache import Cache
from automl_pt.data.folds import fold_data, folds_of
from automl_pt.data.inventory import Inventory
from automl_pt.data.manifest import Entry, Manifest
from automl_pt.data.prepare import Data
from automl_pt.dataset import Hints, LabeledImages
from automl_pt.model.intervals import over_folds

CLASSES = ("cat", "dog")


def data_of(labels: list[int], groups: list[str] | None, *, tested: int = 0, twins: int = 0) -> Data:
    """Return data of so many images, the last `tested` of them a test split, the first `twins` of one content."""
    names = [f"{index:03}.png" for index in range(len(labels))]
    images = LabeledImages(names, labels, CLASSES, names=names, groups=groups)
    entries = [
        Entry(name, f"{max(index, twins):064}", label, "test" if index >= len(names) - tested else "train")
        for index, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
    folder = Path("nowhere")
    manifest = Manifest(tuple(entries), CLASSES, "x", 1)
    return Data(manifest, Hints(), Inventory(images, folder), Cache(folder, required=False))


@settings(deadline=None, max_examples=25)  # the first call imports scikit-learn
@given(sizes=st.lists(st.integers(1, 4), min_size=12, max_size=24), count=st.integers(2, 4))
def test_each_image_is_held_out_once_and_no_group_is_torn(sizes: list[int], count: int) -> None:
    groups = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    labels = [number % 2 for number, size in enumerate(sizes) for _ in range(size)]
    data = data_of(labels, groups)
    folds = folds_of(data, count)
    assert sorted(name for fold in folds for name in fold) == list(data.inventory.names)
    of = dict(zip(data.inventory.names, groups, strict=True))
    homes = [{of[name] for name in fold} for fold in folds]
    assert sum(map(len, homes)) == len(sizes)
    assert folds == folds_of(data, count)
    for number in range(1, count + 1):
        parts = fold_data(data, count, number).manifest
        for split in ("train", "val"):
            assert {entry.label for entry in parts.entries if entry.split == split} == {0, 1}


def test_ungrouped_folds_are_stratified_and_copies_stay_together() -> None:
    data = data_of([0] * 30 + [1] * 15 + [0, 1], None, tested=2)
    for number in range(1, 6):
        counts = [entry.label for entry in fold_data(data, 5, number).manifest.entries if entry.split == "val"]
        assert (counts.count(0), counts.count(1)) == (6, 3)
    copies = folds_of(data_of([0] * 20 + [1] * 20, None, twins=3), 4)
    assert sorted(sum(name < "004.png" for name in fold) for fold in copies) == [0, 0, 0, 4]
    tested = [entry for entry in fold_data(data, 5, 1).manifest.entries if entry.split == "test"]
    assert [entry.name for entry in tested] == ["045.png", "046.png"]


@pytest.mark.parametrize(
    ("labels", "groups", "count", "said", "remedy"),
    [
        (
            [0] * 9 + [1] * 3,
            None,
            4,
            "a class has too few images for 4 folds; given: dog: 3 images",
            "at most 3 --folds",
        ),
        (
            [0] * 8 + [1] * 8,
            ["a"] * 8 + ["b", "c"] * 4,
            2,
            "a class has too few groups for 2 folds; given: cat: 1 group",
            "",
        ),
    ],
)
def test_too_few_are_refused(labels: list[int], groups: list[str] | None, count: int, said: str, remedy: str) -> None:
    with pytest.raises(InvalidDatasetError) as caught:
        folds_of(data_of(labels, groups), count)
    rule, given, todo = caught.value.rule, caught.value.given, caught.value.remedy
    assert f"{rule}; given: {given}".startswith(said)
    assert remedy in todo


def test_the_interval_is_wider_than_that_of_independent_folds() -> None:
    shares = [0.8, 0.9, 0.85, 0.75, 0.7]
    mean, (low, high) = over_folds(shares, 0.25)
    assert mean == pytest.approx(0.8)
    # Student's t of 4 degrees of freedom is 2.776; the variance of the shares is 0.00625
    assert high - mean == pytest.approx(2.7764 * (0.00625 * (1 / 5 + 0.25)) ** 0.5, rel=1e-4)
    assert low == pytest.approx(mean - (high - mean))
    assert over_folds([0.9, 1.0], 1.0)[1] == (0.0, 1.0)
