"""A trial's proxy runs and its run share one network that was built once, and none sees what another did to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_folder
from tiny_runs import write_plugin

from automl_pt.config import TrainConfig
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs import setup
from automl_pt.runs.setup import new_training


def test_a_network_is_built_once_for_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, build = list[int](), setup.build_model

    def counted(*given: Any, **options: Any) -> Any:
        built.append(options["seed"])
        return build(*given, **options)

    monkeypatch.setattr(setup, "build_model", counted)
    monkeypatch.setattr(setup, "_READY", [])
    plugins = load_plugins((str(write_plugin(tmp_path)),))
    config = TrainConfig(
        dataset=str(write_folder(tmp_path / "data", {"train": 8, "val": 4})),
        backbone="tiny",
        batch_size=4,
        pretrained=False,
        cache_dir=str(tmp_path / "cache"),
    )
    data, backbone = prepare(config, plugins), plugins.backbone("tiny", ())

    def start(*, seed: int = 1, is_proxy: bool = True, **changes: Any) -> dict[str, torch.Tensor]:
        asked = config.model_copy(update={"seed": seed, **changes})
        ours = new_training(asked, data, backbone, torch.device("cpu"), "fp32", is_proxy=is_proxy)
        before = {name: value.clone() for name, value in ours.model.state_dict().items()}
        ours.train_epoch(lambda done, batches: False, lambda: None)
        for module in ours.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.0  # as ranking does
        return before

    first = start()
    for changes in ({"augment": "none"}, {"is_proxy": False}):
        again = start(**changes)
        assert all(value.equal(first[name]) for name, value in again.items())
    assert built == [1]
    assert setup._READY == []  # the run took it over
    start(is_proxy=False)
    start(seed=2)
    start(seed=2, lr=0.5)
    assert built == [1, 1, 2, 2]
    for changes in (
        {"precision": "bf16"},
        {"optimizer": "adamw"},
        {"augmentation": "mixup"},
        {"sampling": "balanced"},
        {"objective": "accuracy"},
        {"freeze_groups": 1},
        {"deterministic": True},
    ):
        start(seed=2, **changes)
    assert built == [1, 1, *[2] * 9]
    assert len(setup._READY) == 1
