"""The scanned digits: real, complete, with a split of their own."""

from __future__ import annotations

from collections import Counter

import numpy as np

from automl_pt.plugins.manager import load_plugins


def test_digits_are_the_bundled_scans():
    from sklearn.datasets import load_digits

    dataset = load_plugins().dataset("digits")
    data, scans = dataset.load(None), load_digits()
    assert len(data) == 1797
    assert np.array_equal(np.stack(data.images), np.round(scans.images * 255 / 16))
    assert np.array_equal(data.labels, scans.target)
    assert data.images[0].dtype == np.uint8
    hints = dataset.hints
    assert (hints.horizontal_flip, hints.shift, hints.image_size) == (False, False, 8)


def test_the_split_is_stratified_and_the_same_for_everybody():
    data = load_plugins().dataset("digits").load(None)
    assert Counter(data.splits) == {"train": 1077, "val": 360, "test": 360}
    for split in ("train", "val", "test"):
        counts = Counter(label for label, own in zip(data.labels.tolist(), data.splits, strict=True) if own == split)
        share = data.splits.count(split) / len(data)
        for label, count in Counter(data.labels.tolist()).items():
            assert abs(counts[label] - share * count) < 1
    # part of the dataset: were it to change, figures of different versions could not be compared
    assert [index for index, split in enumerate(data.splits) if split == "test"][:5] == TEST_IMAGES


def test_the_kept_split_is_the_one_drawn_with_scikit_learn():
    from sklearn.model_selection import train_test_split

    data = load_plugins().dataset("digits").load(None)
    indices = np.arange(len(data))
    rest, test = train_test_split(indices, test_size=0.2, stratify=data.labels, random_state=SEED)
    train, val = train_test_split(rest, test_size=0.25, stratify=data.labels[rest], random_state=SEED)
    for split, drawn in (("train", train), ("val", val), ("test", test)):
        assert [index for index, own in enumerate(data.splits) if own == split] == sorted(drawn)


SEED = 20240229
TEST_IMAGES = [2, 20, 26, 33, 39]
