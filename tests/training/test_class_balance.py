"""Class weights by name, and balanced sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import weights, write_plugin

from automl_pt.api.search import steps
from automl_pt.cli import cli
from automl_pt.cli.options import build_config
from automl_pt.config import SearchConfig, TrainConfig, make
from automl_pt.core.errors import ConfigError
from automl_pt.data.balanced import balanced_order
from automl_pt.runs import run
from automl_pt.runs.directory import history
from automl_pt.training.class_weights import class_weights

PLAIN: dict[str, Any] = {"backbone": "plain", "epochs": 2, "batch_size": 4, "lr": 0.03, "threads": 1, "device": "cpu"}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("none", "none"),
        ("balanced", "balanced"),
        ("cat=2,dog=1", (("cat", 2.0), ("dog", 1.0))),
        (" dog = 1 , cat=2.5", (("cat", 2.5), ("dog", 1.0))),
        ("a=b=3", (("a=b", 3.0),)),
        ({"dog, wet": 1, "cat": 2}, (("cat", 2.0), ("dog, wet", 1.0))),
        ([["cat", 2.0]], (("cat", 2.0),)),
    ],
)
def test_weights_are_read_in_every_form(given: Any, read: Any) -> None:
    config = TrainConfig(dataset="x", class_weights=given)
    assert config.class_weights == read
    assert TrainConfig(**config.model_dump(mode="json")) == config
    assert hash(config) == hash(TrainConfig(dataset="x", class_weights=given))


REFUSED = ("", "cat", "cat=", "=2", "cat=0", "cat=-1", "cat=inf", "cat=1,cat=2", {}, 3, {"cat": "2"}, {"cat": True})


@pytest.mark.parametrize("given", REFUSED)
def test_weights_that_are_none_are_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"class_weights: must be none, balanced, or NAME=WEIGHT"):
        make(TrainConfig, {"dataset": "x", "class_weights": given})


def test_a_toml_file_and_the_command_line_give_the_same_weights(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('dataset = "x"\nsampling = "balanced"\n[class_weights]\ncat = 2\ndog = 1\n')
    read = build_config(TrainConfig, path, {})
    assert read == build_config(
        TrainConfig, None, {"dataset": "x", "class_weights": "cat=2,dog=1", "sampling": "balanced"}
    )
    trial = SearchConfig(**read.model_dump(exclude={"lr", "batch_size", "backbone"})).trial(
        backbone="plain", lr=0.1, batch_size=4, seed=1
    )
    assert (trial.class_weights, trial.sampling) == (read.class_weights, "balanced")


def test_weights_and_sampling_do_not_both_balance() -> None:
    with pytest.raises(ConfigError, match="give class_weights or sampling 'balanced', not both"):
        make(TrainConfig, {"dataset": "x", "class_weights": "balanced", "sampling": "balanced"})
    assert TrainConfig(dataset="x", class_weights="cat=2", sampling="balanced").sampling == "balanced"


def test_weights_stand_at_their_classes() -> None:
    config, labels = TrainConfig(dataset="x", class_weights={"dog": 3}), torch.tensor([0, 1, 1, 2])
    found = class_weights(config.class_weights, labels, ("cat", "dog", "eel"))
    assert found is not None
    assert found.tolist() == [1.0, 3.0, 1.0]
    balanced = class_weights("balanced", labels, 3)
    assert balanced is not None
    assert balanced.tolist() == pytest.approx([4 / 3, 2 / 3, 4 / 3])


def test_a_name_that_is_no_class_is_told_before_anything_is_written(
    tiny_folder: Path, tmp_path: Path, runner: CliRunner
) -> None:
    plugin = str(write_plugin(tmp_path))
    known = sorted(path.name for path in (tiny_folder / "train").iterdir())
    words = ["train", str(tiny_folder), "--plugin", plugin, "--backbone", "plain", "-o", str(tmp_path / "out")]
    error = runner.invoke(cli, [*words, "--class-weights", f"{known[0]}s=2"]).exception
    assert isinstance(error, ConfigError)
    assert f"no class is called '{known[0]}s'; did you mean '{known[0]}'?" in str(error)
    assert f"The classes are {', '.join(known)}" in str(error)
    assert not (tmp_path / "out").exists()
    asked: dict[str, Any] = {"backbones": ("plain",), "plugins": (plugin,), "class_weights": {"nobody": 2}}
    config = SearchConfig(dataset=str(tiny_folder), **asked)
    with pytest.raises(ConfigError, match="no class is called 'nobody'"):
        list(steps(config, tmp_path / "study"))
    assert not (tmp_path / "study").exists()


def test_equal_weights_change_nothing_and_others_do(tiny_folder: Path, tmp_path: Path) -> None:
    plugin = str(write_plugin(tmp_path))
    known = sorted(path.name for path in (tiny_folder / "train").iterdir())

    def loss(name: str, **more: Any) -> float:
        return list(run.train(str(tiny_folder), output=tmp_path / name, plugins=plugin, **PLAIN, **more))[-1].val_loss

    plain = loss("plain")
    assert loss("equal", class_weights=dict.fromkeys(known, 1.0)) == pytest.approx(plain)
    assert loss("heavy", class_weights={known[0]: 20}) != pytest.approx(plain)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(0, 5), st.integers(1, 3))
def test_balanced_epochs_draw_classes_equally_and_images_of_a_class_evenly(
    labels: list[int], seed: int, epoch: int
) -> None:
    array = np.array(labels)
    order = balanced_order(array, seed=seed, epoch=epoch)
    assert len(order) == len(array)
    classes = np.unique(array)
    drawn = [int((array[order] == one).sum()) for one in classes]
    assert max(drawn) - min(drawn) <= 1
    for one in classes:
        times = np.bincount(order, minlength=len(array))[array == one]
        assert times.max() - times.min() <= 1
    assert np.array_equal(order, balanced_order(array, seed=seed, epoch=epoch))


def test_another_epoch_or_seed_is_another_order() -> None:
    labels = np.arange(40) % 3
    orders = {tuple(balanced_order(labels, seed=seed, epoch=epoch)) for seed in (1, 2) for epoch in (1, 2)}
    assert len(orders) == 4


def test_a_run_with_balanced_sampling_resumes_bit_for_bit(tiny_folder: Path, tmp_path: Path) -> None:
    plugin = str(write_plugin(tmp_path))
    for path in sorted((tiny_folder / "train").iterdir())[0].iterdir():
        if path.stem[-1] in "02468":
            path.unlink()  # one class is rarer

    def start(name: str) -> Any:
        return run.train(str(tiny_folder), output=tmp_path / name, plugins=plugin, sampling="balanced", **PLAIN)

    list(start("whole"))
    first = start("parts")
    next(first)
    first.close()
    list(start("parts"))
    whole, parts = (history(tmp_path / name) for name in ("whole", "parts"))
    assert [result.val_loss for result in whole] == [result.val_loss for result in parts]
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(tmp_path / "parts")[name])
