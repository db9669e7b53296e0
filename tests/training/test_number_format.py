"""The short number format is taken where it is the faster one, by a measurement that is remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from automl_pt.core.files import CACHE_VARIABLE
from automl_pt.training.device import NumberFormat
from automl_pt.training.number_format import faster_format, remembered

CPU = torch.device("cpu")


def network(groups: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3, groups=groups), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_measurement_is_made_once(tmp_path: Path) -> None:
    path, made = tmp_path / "cache" / "formats.json", list[str]()

    def measure() -> NumberFormat:
        made.append("here")
        return "fp32"

    assert [remembered(path, "net", measure) for _ in range(3)] == ["fp32"] * 3
    assert remembered(path, "other", measure) == "fp32"
    assert len(made) == 2
    assert json.loads(path.read_text()) == {"net": "fp32", "other": "fp32"}


@pytest.mark.parametrize("content", ["", "[1]", '{"net": "int3"}'])
def test_a_damaged_memory_is_written_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "formats.json"
    path.write_text(content)
    assert remembered(path, "net", lambda: "bf16") == "bf16"
    assert json.loads(path.read_text())["net"] == "bf16"


def test_without_a_memory_the_device_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert remembered(tmp_path / "file" / "formats.json", "net", lambda: "fp32") is None
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    assert faster_format(network(3), "net", 8, CPU, "auto", "bf16") == "bf16"


@pytest.mark.parametrize(
    ("groups", "asked", "precision", "is_timed"),
    [(3, "auto", "bf16", True), (1, "auto", "bf16", False), (3, "bf16", "bf16", False), (3, "auto", "fp32", False)],
)
def test_networks_with_grouped_convolutions_are_timed_in_both_formats(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    groups: int,
    asked: str,
    precision: NumberFormat,
    is_timed: bool,
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    model = network(groups)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    found = [faster_format(model, "net", 8, CPU, asked, precision) for _ in range(2)]
    path = tmp_path / "number-formats.json"
    assert path.exists() is is_timed
    assert found == [*(json.loads(path.read_text()).values() if is_timed else [precision])] * 2
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
