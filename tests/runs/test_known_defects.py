"""The ten known defects of the original component, numbered as in the README, each shown to be absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_folder
from tiny_runs import command, equal, finished, record, weights, write_plugin

from automl_pt.core.errors import ConfigError, DatasetError, NotLabeledDatasetError, WeightsError
from automl_pt.data.loader import Loader
from automl_pt.data.prepare import Pixels
from automl_pt.dataset import Hints
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.runs import run
from automl_pt.training.early_stopping import EarlyStopping


@pytest.fixture
def plugins(tmp_path: Path) -> Plugins:
    return load_plugins((str(write_plugin(tmp_path)),))


def trained(folder: Path, output: Path, plugins: Plugins, **changes: Any) -> list[Any]:
    settings = {"backbone": "tiny", "epochs": 3, "batch_size": 4, "lr": 0.01, "threads": 1, "device": "cpu", **changes}
    return list(run.train(str(folder), output=output, plugins=plugins, **settings))


def test_1_a_loss_that_is_not_a_number_ends_the_run(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    stopping = EarlyStopping(patience=2)
    assert [stopping.update(loss) for loss in (1.0, 1.0)] == [None, None]
    assert stopping.update(float("nan")) == "diverged"
    results = trained(tiny_folder, tmp_path / "out", plugins, epochs=50, lr=1e30, schedule="constant")
    assert results[-1].reason == record(tmp_path / "out")["reason"] == "diverged"
    assert len(results) < 50


def test_2_the_best_weights_are_a_copy(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    same: dict[str, Any] = {"lr": 0.5, "schedule": "constant", "augment": "always", "patience": 9}
    results = trained(tiny_folder, tmp_path / "long", plugins, epochs=6, **same)
    best = min(results, key=lambda result: result.val_loss).epoch
    assert best < 6
    # with a constant rate a run of just so many epochs takes the same steps, and ends on the best weights
    trained(tiny_folder, tmp_path / "short", plugins, epochs=best, **same)
    assert equal(tmp_path / "long", tmp_path / "short")


def test_3_a_category_missing_from_validation_is_an_error_not_a_shift(tmp_path: Path, plugins: Plugins) -> None:
    folder = write_folder(tmp_path / "data", {"train": 4, "val": 4})
    for path in (folder / "val" / "green").iterdir():
        path.unlink()
    (folder / "val" / "green").rmdir()
    with pytest.raises((DatasetError, NotLabeledDatasetError), match="green"):
        trained(folder, tmp_path / "out", plugins)


def test_4_the_seed_comes_before_the_head_in_every_process(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    words = command(tiny_folder, tmp_path / "there", write_plugin(tmp_path), epochs=2, seed=5)
    code, _, errors = finished(words, tmp_path / "cache")
    assert code == 0, errors
    torch.rand(3)  # what this process has drawn before is no matter
    trained(tiny_folder, tmp_path / "here", plugins, epochs=2, seed=5)
    trained(tiny_folder, tmp_path / "other", plugins, epochs=2, seed=6)
    assert equal(tmp_path / "here", tmp_path / "there")
    assert not equal(tmp_path / "here", tmp_path / "other")


def test_5_warm_up_as_long_as_the_run_is_refused_before_it(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    with pytest.raises(ConfigError, match="warmup_epochs must be below epochs, got 3 and 3"):
        trained(tiny_folder, tmp_path / "out", plugins, warmup_epochs=3)
    assert trained(tiny_folder, tmp_path / "out", plugins, warmup_epochs=2)[-1].reason == "completed"


def test_6_an_unreadable_image_is_named_not_replaced(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    bad = tiny_folder / "train" / "red" / "000.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(DatasetError, match="000.png"):
        trained(tiny_folder, tmp_path / "out", plugins)
    trained(tiny_folder, tmp_path / "allowed", plugins, max_bad=0.2)
    assert record(tmp_path / "allowed")["data"]["left_out"] == 1
    assert record(tmp_path / "allowed")["data"]["counts"]["train"] == 23


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("batch_size", 0), ("lr", 0.0), ("lr", float("nan")), ("patience", -1), ("seed", 1.5)],
)
def test_7_ranges_hold_in_python_and_on_the_command_line(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=name):
        run.train("digits", output=tmp_path / "out", **{name: value})
    assert not (tmp_path / "out").exists()


def test_8_augmentation_is_drawn_anew_each_epoch() -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 3, 16, 16)).astype(np.uint8)
    pixels = Pixels(images, np.zeros(20, np.int64), tuple(map(str, range(20))))
    loader = Loader(
        pixels,
        batch_size=20,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        seed=1,
        device=torch.device("cpu"),
        hints=Hints(),
        augmented_epochs=99,
        shuffle=False,
    )
    first, second, again = (next(iter(loader.epoch(epoch)))[0] for epoch in (1, 2, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_9_scoring_needs_no_pretrained_weights(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    from automl_pt.model.load import load_model

    trained(tiny_folder, tmp_path / "out", plugins)
    model = load_model(tmp_path / "out", plugins=plugins)
    paths = sorted((tiny_folder / "val").rglob("*.png"))
    assert model.predict(paths).shape == (12, 3)
    with pytest.raises(WeightsError):  # and when they are asked for and absent, the run says so before it starts
        trained(tiny_folder, tmp_path / "asked", plugins, pretrained=True)


def test_10_a_stopped_run_goes_on_to_the_same_weights(tiny_folder: Path, tmp_path: Path, plugins: Plugins) -> None:
    trained(tiny_folder, tmp_path / "whole", plugins)
    config = {"backbone": "tiny", "epochs": 3, "batch_size": 4, "lr": 0.01, "threads": 1, "device": "cpu"}
    generator = run.train(str(tiny_folder), output=tmp_path / "out", plugins=plugins, **config)
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    trained(tiny_folder, tmp_path / "out", plugins)
    assert weights(tmp_path / "out").keys() == weights(tmp_path / "whole").keys()
    assert equal(tmp_path / "out", tmp_path / "whole")
