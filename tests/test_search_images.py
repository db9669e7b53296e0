"""The search on real images with a real, small network: the seam between search, run and model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from automl_pt import load_model
from automl_pt.config import SearchConfig
from automl_pt.data.prepare import prepare
from automl_pt.plugins import load_plugins
from automl_pt.run import execute
from automl_pt.study import events
from automl_pt.study.classifier import paired
from automl_pt.study.engine.ranking import rank_loss, use_batch_statistics
from automl_pt.study.records import StudyResult
from automl_pt.study.search import steps

PLUGIN = """
from torch import nn
from automl_pt import Backbone, hookimpl

def build(num_classes, pretrained):
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Linear(32, num_classes))

@hookimpl
def register_backbones():
    return [Backbone("tiny", build, image_size=16, min_image_size=8)]
"""


def search(folder: Path, directory: Path, **settings: Any) -> StudyResult:
    plugin = directory.parent / "tiny_plugin.py"
    plugin.write_text(PLUGIN)
    config = SearchConfig(
        **{
            "dataset": str(folder),
            "backbones": ("tiny",),
            "plugins": (str(plugin),),
            "epochs": 3,
            "trials": 4,
            "batch_sizes": (4, 8),
            "threads": 1,
            "workers": 0,
            **settings,
        }
    )
    for event in steps(config, directory):
        if isinstance(event, events.Finished):
            return event.result
    raise AssertionError


def test_a_search_leaves_a_model_that_gives_the_figures_it_was_chosen_by(tiny_folder: Path, tmp_path: Path) -> None:
    result = search(tiny_folder, tmp_path / "study")
    assert result.best is not None
    assert result.model is not None
    assert result.test is not None
    assert 0 <= result.test["accuracy"] <= 1
    assert result.comparison is not None
    assert result.comparison.images == 12
    assert [record.state for record in result.trials].count("COMPLETE") == 3  # the default one, and two others
    model = load_model(result.model, plugins=load_plugins([str(tmp_path / "tiny_plugin.py")]))
    data = prepare(
        SearchConfig(dataset=str(tiny_folder)), load_plugins(), manifest=tmp_path / "study" / "manifest.json"
    )
    pixels = data.pixels("val", 16)
    logits = torch.from_numpy(model.forward(np.asarray(pixels.images)))
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(pixels.labels)).item()
    assert loss == pytest.approx(result.best.value, abs=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_paused_and_resumed_trial_equals_one_run_in_one_go(tiny_folder: Path, tmp_path: Path, workers: int) -> None:
    rungs = search(tiny_folder, tmp_path / "rungs", workers=workers)
    full = search(tiny_folder, tmp_path / "full", pruner="none")
    for paused, whole in zip(rungs.trials, full.trials, strict=True):
        assert paused.params == whole.params
        assert paused.losses == {epoch: whole.losses[epoch] for epoch in paused.losses}
        assert paused.state == "PRUNED" or paused.value == whole.value


def test_ranking_looks_and_changes_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny_plugin.py").write_text(PLUGIN)
    plugins = load_plugins([str(tmp_path / "tiny_plugin.py")])
    config = SearchConfig(dataset=str(tiny_folder), backbones=("tiny",), epochs=2).trial(
        backbone="tiny", lr=0.01, batch_size=8, seed=1
    )
    data = prepare(config, plugins)
    run = execute(config, tmp_path / "run", data=data, plugins=plugins)
    next(run)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()}
    first, second = (rank_loss(config, tmp_path / "run", data, plugins) for _ in range(2))
    assert first == second
    assert first is not None
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()}
    run.close()  # type: ignore[attr-defined]


def test_batch_statistics_replace_the_running_ones_and_leave_them() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2))
    images = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert use_batch_statistics(model)
    torch.testing.assert_close(model(images), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), atol=1e-4, rtol=0)
    assert torch.equal(model[0].running_mean, torch.zeros(2))  # type: ignore[arg-type]
    assert not use_batch_statistics(nn.Sequential(nn.Linear(2, 2)))


def test_a_lead_within_two_standard_errors_is_inside_the_noise() -> None:
    noise = np.random.default_rng(1).normal(0, 1, 400)
    first = np.abs(np.random.default_rng(2).normal(1, 1, 400))
    assert paired(0, 1, first, first + 0.01 + noise).inside_noise
    clear = paired(0, 1, first, first + 0.5 + noise)
    assert not clear.inside_noise
    assert clear.difference == pytest.approx(0.5, abs=0.1)
    assert clear.standard_error == pytest.approx(0.05, rel=0.2)
