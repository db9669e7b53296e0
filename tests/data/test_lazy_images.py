"""Sets larger than memory: images made when they are asked for, and never many of them at once."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_pt import Dataset, LabeledImages, LazyImages, hookimpl
from automl_pt.config import TrainConfig, make
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.testing import check_dataset


class Counted:
    """Makes images, and counts how many of them live at the same time."""

    def __init__(self) -> None:
        self.alive, self.most, self.lock = 0, 0, threading.Lock()

    def __call__(self, index: int) -> np.ndarray:
        image = np.random.default_rng(index).integers(0, 256, (24, 24, 3), np.uint8)
        with self.lock:
            self.alive += 1
            self.most = max(self.most, self.alive)
        weakref.finalize(image, self._died)
        return image

    def _died(self) -> None:
        with self.lock:
            self.alive -= 1


class ByHand:
    def __init__(self, load) -> None:
        self.load = load

    @hookimpl
    def register_datasets(self):
        return [Dataset("lazy", self.load)]


def test_a_lazy_set_is_prepared_without_ever_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    make_image, count, plugins = Counted(), 600, load_plugins()
    plugins.manager.register(
        ByHand(lambda root: LabeledImages(LazyImages(count, make_image), np.arange(count) % 3, ["a", "b", "c"])), "hand"
    )
    config = make(TrainConfig, {"dataset": "lazy", "image_size": 16, "threads": 2})
    data = prepare(config, plugins, manifest=tmp_path / "manifest.json")
    assert data.manifest.counts() == {"train": 480, "val": 120, "test": 0}
    assert len(data.pixels("train", 16).labels) == 480
    assert 1 <= make_image.most <= 64
    assert make_image.alive == 0


def test_a_lazy_set_keeps_the_contract():
    images = LazyImages(40, Counted())
    check_dataset(Dataset("lazy", lambda root: LabeledImages(images, [0, 1] * 20, ["a", "b"])))


@given(st.integers(0, 30), st.slices(30), st.integers(-40, 40))
def test_it_is_a_sequence_like_any_other(count, part, index):
    lazy, plain = LazyImages(count, lambda i: np.full((1, 1), i, np.uint8)), list(range(count))
    assert len(lazy) == count
    assert [int(image[0, 0]) for image in lazy[part]] == plain[part]
    if -count <= index < count:
        assert int(lazy[index][0, 0]) == plain[index]
    else:
        with pytest.raises(IndexError):
            lazy[index]
