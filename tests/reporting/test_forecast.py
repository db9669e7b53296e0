"""What more images would bring, and what to try next: of a real search from weights, and of made-up points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_folder
from safetensors.torch import save_file

from automl_pt.api.search import steps
from automl_pt.backbones.build import build_model
from automl_pt.config import SearchConfig
from automl_pt.features.logistic import fit_head
from automl_pt.plugins.manager import load_plugins
from automl_pt.reporting.html.page import render
from automl_pt.reporting.sections.forecast import described, points_of
from automl_pt.reporting.sections.write import read_content

PLUGIN = """
from torch import nn
from automl_pt import Backbone, hookimpl

def plain(num_classes, pretrained):
    body = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(32, num_classes))

@hookimpl
def register_backbones():
    return [Backbone("plain", plain, image_size=16)]
"""


def test_a_study_with_a_probe_has_a_forecast_and_tips_with_their_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "networks.py").write_text(PLUGIN)
    photos = write_folder(tmp_path / "photos", {"train": 12, "val": 6}, side=40)
    plugins = load_plugins([str(tmp_path / "networks.py")])
    save_file(build_model(plugins.backbone("plain"), 7, 16, seed=5).state_dict(), tmp_path / "plain.safetensors")
    asked: dict[str, Any] = {"epochs": 1, "trials": 1, "batch_sizes": (8,), "threads": 1, "workers": 0, "report": False}
    config = SearchConfig(
        dataset=str(photos),
        backbones=("plain",),
        weights=str(tmp_path / "plain.safetensors"),
        plugins=plugins.files,
        **asked,
    )
    list(steps(config, tmp_path / "study"))

    content = read_content(tmp_path / "study", plugins=plugins)[1]
    forecast, advice = content.values["forecast"], content.values["advice"]
    assert [point["images"] for point in forecast["points"]] == [9, 18, 36]
    assert all(0 <= point["accuracy"] <= 1 for point in forecast["points"])
    assert "A linear head on the features of plain" in forecast["note"]
    tips = {tip["what"]: tip["why"] for tip in advice["tips"]}
    larger = "Train on larger images (`--image-size 32`)"
    accuracy = content.values["classes"]["accuracy"]
    assert (larger in tips) == (accuracy < 0.98)
    assert not any("pretrained" in what for what in tips)
    page = render(content.values, content.pictures)
    assert ("<code>--image-size 32</code>" in page) == (accuracy < 0.98)


def clouds(images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features of three overlapping classes, of which the first is rare."""
    random = torch.Generator().manual_seed(images)
    labels = torch.arange(images) % 5
    labels = torch.where(labels < 1, 0, 1 + labels % 2)
    return 1.5 * torch.eye(3)[labels] + torch.randn(images, 3, generator=random), labels


def test_heads_are_fitted_to_growing_parts_with_all_classes() -> None:
    points = points_of(clouds(160), clouds(60), 3)
    assert [point["images"] for point in points] == [20, 40, 80, 160]
    assert points == points_of(clouds(160), clouds(60), 3)
    whole = fit_head(clouds(160), clouds(60), 3)  # fitted already, as by the probe
    assert points == points_of(clouds(160), clouds(60), 3, whole=whole)
    assert [point["images"] for point in points_of(clouds(20), clouds(60), 3)] == [10, 20]


@pytest.mark.parametrize(
    ("accuracies", "twice", "said"),
    [
        ((0.2, 0.6, 0.8, 0.9), 0.95, "With 1,600 training images instead of 800 it would reach about 95 %"),
        ((0.7, 0.7, 0.7, 0.7), None, "its accuracy has stopped rising"),
        ((0.9, 0.8, 0.7, 0.6), None, "its accuracy has stopped rising"),
        ((0.9, 0.95, 1.0, 1.0), None, "its accuracy has stopped rising"),
    ],
)
def test_the_fall_of_the_error_is_extended_to_twice_as_many_images(
    accuracies: tuple[float, ...], twice: float | None, said: str
) -> None:
    points = [{"images": 100 * 2**place, "accuracy": one} for place, one in enumerate(accuracies)]
    if accuracies[0] == 0.2:  # errors that halve with twice the images
        points = [{"images": 100 * 2**place, "accuracy": 1 - 0.8 / 2**place} for place in range(4)]
    found = described(points, "plain")
    assert found["twice"] is None if twice is None else found["twice"] == pytest.approx(twice)
    assert said in found["note"]
