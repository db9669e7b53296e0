from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from automl_pt.config import SearchConfig, TrainConfig, make
from automl_pt.core.config_files import read_toml
from automl_pt.core.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "value", "rule"),
    [
        ("epochs", 0, "epochs: should be greater than 0, got 0"),
        ("epochs", 2.5, "epochs: should be a valid integer, got 2.5"),
        ("epochs", True, "epochs: should be a valid integer, got True"),
        ("batch_size", -1, "batch_size: should be greater than 0, got -1"),
        ("lr", 0, "lr: should be greater than 0, got 0"),
        ("lr", float("nan"), "lr: should be a finite number, got nan"),
        ("lr", float("inf"), "lr: should be a finite number, got inf"),
        ("patience", 0, "patience: should be greater than 0, got 0"),
        ("seed", 1.5, "seed: should be a valid integer, got 1.5"),
        ("stop_rule", "never", "stop_rule: should be 'consecutive' or 'best', got 'never'"),
        ("device", "tpu", "device: must be auto, cpu, cuda, cuda:N or mps, got 'tpu'"),
        ("epoch", 3, "epoch: unknown setting; did you mean 'epochs'?"),
        ("wibble", 3, "wibble: unknown setting"),
        ("warmup_epochs", 5, "warmup_epochs must be below epochs, got 5 and 5"),
        ("min_delta", 0.1, "min_delta belongs to stop_rule 'best', got stop_rule 'consecutive'"),
    ],
)
def test_each_mistake_names_rule_and_value(setting: str, value: Any, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(TrainConfig, {"dataset": "digits", setting: value})
    assert caught.value.mistakes[0].startswith(rule)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("field", "value"), [("lr", 5e-324), ("seed", -(10**30)), ("epochs", 1), ("patience", 1)])
def test_the_edges_of_the_ranges_are_allowed(field: str, value: Any) -> None:
    assert getattr(make(TrainConfig, {"dataset": "digits", field: value}), field) == value


def test_documented_defaults() -> None:
    config = TrainConfig(dataset="digits")
    assert (config.epochs, config.batch_size, config.lr, config.seed, config.patience) == (5, 16, 0.001, 1, 3)
    assert config.stop_rule == "consecutive"


@pytest.mark.parametrize(
    ("epochs", "augmented"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (7, 4), (9, 6), (15, 12), (100, 97)]
)
def test_the_last_epochs_are_not_augmented(epochs: int, augmented: int) -> None:
    def of(augment: str) -> int:
        return TrainConfig(dataset="x", epochs=epochs, augment=augment).augmented_epochs  # type: ignore[arg-type]

    assert (of("early"), of("always"), of("none")) == (augmented, epochs, 0)
    assert of("auto") == epochs  # what earlier versions wrote, and did


def test_pretrained_and_weights_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="give pretrained or weights, not both"):
        make(TrainConfig, {"dataset": "digits", "pretrained": True, "weights": "w.safetensors"})


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make(TrainConfig, {"epochs": 0, "lr": -1.0, "pacience": 3})
    assert len(caught.value.mistakes) == 4
    assert "4 mistakes" in str(caught.value)
    assert "dataset: required" in caught.value.mistakes


def test_contradictions_are_reported_beside_wrong_values() -> None:
    wrong = {"dataset": "digits", "lr": (1.0, 0.1), "trials": 0, "epochs": 2, "warmup_epochs": 3, "min_delta": -1}
    with pytest.raises(ConfigError) as caught:
        make(SearchConfig, wrong)
    assert set(caught.value.mistakes) == {
        "trials: should be greater than 0, got 0",
        "min_delta: should be greater than or equal to 0, got -1",
        "lr must go from low to high, got 1:0.1",
        "warmup_epochs must be below epochs, got 3 and 2",
    }


def test_all_contradictions_are_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        make(SearchConfig, {"dataset": "digits", "lr": (1.0, 0.1), "min_delta": 0.5})
    assert len(caught.value.mistakes) == 2


def test_search_range_must_rise() -> None:
    with pytest.raises(ConfigError, match="lr must go from low to high, got 1:0.1"):
        make(SearchConfig, {"dataset": "digits", "lr": (1.0, 0.1)})


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "x" * 101, "a\0b"])
def test_study_names_are_safe_folder_names(name: str) -> None:
    with pytest.raises(ConfigError, match="name: "):
        make(SearchConfig, {"dataset": "digits", "name": name})


def test_a_trial_keeps_what_the_study_shares() -> None:
    study = SearchConfig(dataset="digits", epochs=7, patience=2)
    trial = study.trial(backbone="resnet34", lr=0.1, batch_size=32, seed=5)
    assert (trial.dataset, trial.epochs, trial.patience) == ("digits", 7, 2)
    assert (trial.backbone, trial.lr, trial.batch_size, trial.seed) == ("resnet34", 0.1, 32, 5)


def test_broken_toml_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("epochs = 3\nlr = = 2\n")
    with pytest.raises(ConfigError, match=r"broken.toml: 1 mistake(.|\n)*line 2"):
        read_toml(path)


def test_missing_config_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Folder or file not found: "):
        read_toml(tmp_path / "absent.toml")
