"""Where a run on pretrained weights starts: a head of zeros, batch-norm statistics that stay, a rate for the head."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import write_folder
from test_graph import run_again
from test_trainer import network, same, settings, training
from tiny import load_tiny
from tiny_runs import weights
from torch import Tensor, nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import build_model
from automl_pt.backbones.parameter_groups import lr_scales
from automl_pt.config import SearchConfig, TrainConfig, as_made
from automl_pt.core.errors import CheckpointError
from automl_pt.core.files import read_json, write_json
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs import run
from automl_pt.study.ranking import rank_loss, shuffled_loss
from automl_pt.training.batch_norm import moving_buffers, normalisations, train_mode
from automl_pt.training.checkpoint import Checkpoints
from automl_pt.training.cuda.graph import GraphedStep
from automl_pt.training.loop import Training, train
from automl_pt.training.step import Step


class Heads(nn.Module):
    """A body and any head."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3), head

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.body(images).mean((2, 3), keepdim=True)
        logits: Tensor = self.head(features if isinstance(self.head, nn.Conv2d) else features.flatten(1))
        return logits.flatten(1)


def backbone(make: Callable[[int], nn.Module], **told: Any) -> Backbone:
    return Backbone("mine", lambda n, p: Heads(make(n)), image_size=8, has_pretrained=True, **told)


def deep(classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, classes))


@pytest.mark.parametrize(
    ("head", "told", "zeros"),
    [
        (lambda n: nn.Linear(4, n), None, {"head.weight", "head.bias"}),
        (lambda n: nn.Linear(4, n, bias=False), "head", {"head.weight"}),
        (lambda n: nn.Conv2d(4, n, 1), "head", {"head.weight", "head.bias"}),
        (deep, "head", {"head.2.weight", "head.2.bias"}),
        (lambda n: nn.Sequential(nn.Linear(4, n), nn.LogSoftmax(1)), "head", {"head.0.weight", "head.0.bias"}),
        # no linear layer gives the logits: the head stays as the backbone made it
        (lambda n: nn.Sequential(nn.Linear(4, 9), nn.AdaptiveAvgPool1d(n)), "head", set()),
    ],
)
def test_a_new_head_on_pretrained_weights_starts_at_zero(head: Any, told: Any, zeros: set[str], tmp_path: Path) -> None:
    mine = backbone(head, head=told)
    scratch = build_model(mine, 3, 8, seed=1)
    safetensors.torch.save_file(build_model(mine, 7, 8, seed=2).state_dict(), tmp_path / "weights")
    for model in (
        build_model(mine, 3, 8, pretrained=True, seed=1),
        build_model(mine, 3, 8, weights=tmp_path / "weights", seed=1),
    ):
        assert {name for name, value in model.named_parameters() if not value.any()} == zeros
    assert all(value.any() for value in scratch.parameters())
    again = build_model(mine, 3, 8, pretrained=True, seed=1)
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in scratch.state_dict().items() if n not in zeros)


def test_both_heads_of_a_distilled_network_start_at_zero() -> None:
    class Two(Heads):
        def __init__(self, classes: int) -> None:
            super().__init__(nn.Linear(4, classes))
            self.other = nn.Linear(4, classes)

    mine = Backbone("two", lambda n, p: Two(n), image_size=8, has_pretrained=True, head=("head", "other"))
    model = build_model(mine, 3, 8, pretrained=True, seed=1)
    assert [name for name, value in model.named_parameters() if value.any()] == ["body.weight", "body.bias"]


def test_a_head_that_the_weights_bring_is_kept(tmp_path: Path) -> None:
    mine = backbone(deep, head="head")
    source = build_model(mine, 3, 8, seed=2)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "weights")
    model = build_model(mine, 3, 8, weights=tmp_path / "weights", seed=1)
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["densenet121", "timm/test_efficientnet", "timm/test_vit"])
def test_the_first_loss_of_built_in_backbones_is_that_of_equal_chances(name: str, tmp_path: Path) -> None:
    found = load_plugins().backbone(name)
    safetensors.torch.save_file(build_model(found, 7, 32, seed=2).state_dict(), tmp_path / "weights")
    model = build_model(found, 5, 32, weights=tmp_path / "weights", seed=1).eval()
    with torch.inference_mode():
        loss = nn.functional.cross_entropy(model(torch.rand(4, 3, 32, 32)), torch.arange(4))
    assert loss.item() == pytest.approx(math.log(5))


@pytest.mark.parametrize("kind", [TrainConfig, SearchConfig])
@pytest.mark.parametrize(
    ("given", "keeps"),
    [
        ({}, False),
        ({"batch_norm": "keep"}, True),
        ({"pretrained": True}, True),
        ({"weights": "file"}, True),
        ({"weights": "file", "batch_norm": "train"}, False),
    ],
)
def test_statistics_are_kept_by_default_where_a_run_starts_from_weights(
    kind: Any, given: dict[str, Any], keeps: bool
) -> None:
    assert kind(dataset="digits", **given).keeps_batch_norm is keeps


@pytest.mark.parametrize(
    ("record", "batch_norm"),
    [
        ({}, None),
        ({"pretrained": True}, "train"),
        ({"weights": "file"}, "train"),
        ({"weights": "file", "batch_norm": "auto"}, "auto"),
    ],
)
def test_records_of_versions_that_always_trained_the_statistics(record: dict[str, Any], batch_norm: Any) -> None:
    assert as_made(record).get("batch_norm") == batch_norm


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if "running" in name or "num_" in name}


def with_statistics() -> nn.Module:
    model = network(dropout=0.3)
    model[1].running_mean.normal_(generator=torch.Generator().manual_seed(0))
    model[1].running_var.fill_(2.0)
    return model


def by_itself(changes: dict[str, Any]) -> Training:
    return training(settings(batch_norm="keep", **changes), with_statistics())


def recorded(changes: dict[str, Any]) -> Training:
    ours = by_itself(changes)
    ours.take_step = GraphedStep(ours.step, ours.train_loader.batch_sizes[0], run_again)
    return ours


@pytest.mark.parametrize("make", [by_itself, recorded])
@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}, {"micro_batch_size": 3}])
def test_kept_statistics_stay_bit_for_bit_and_all_weights_train(make: Any, changes: dict[str, Any]) -> None:
    ours = make(changes)
    before = copy.deepcopy(ours.model.state_dict())
    list(train(ours))
    kept = statistics(ours.model)
    changed = {name for name, value in ours.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == before.keys() - kept.keys()
    if ours.ema is not None:
        average = ours.ema.module.state_dict()
        assert all(torch.equal(average[name], before[name]) for name in kept)


def test_a_kept_run_is_the_same_steps_with_that_layer_in_evaluation_mode() -> None:
    ours, model = training(settings(batch_norm="keep", epochs=1)), network()
    model.train()[1].eval()
    step = Step(model, settings(), device=torch.device("cpu"), precision="fp32")
    losses = [
        step(*batch, lr=ours.lr(number)).item() * len(batch[0]) / 23
        for number, batch in enumerate(ours.train_loader.epoch(1))
    ]
    (result,) = train(ours)
    assert result.train_loss == pytest.approx(sum(losses), rel=1e-6)


def test_a_kept_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, checkpoints = by_itself({}), Checkpoints(tmp_path)
    list(train(whole))
    list(train(by_itself({}), checkpoints=checkpoints, after_step=lambda done, batches: done == 2))
    resumed = by_itself({})
    resumed.restore(checkpoints)
    list(train(resumed))
    assert same(resumed.model, whole.model)


class Normalised(nn.Module):
    """A body that ends in normalisation without parameters, and one of a class of its own."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("running_var", torch.ones(()))

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.GroupNorm(2, 4))
        self.own, self.head = self.Own(), nn.Linear(4, 2)


def modes(model: nn.Module) -> dict[str, bool]:
    return {name: layer.training for name, layer in normalisations(model)}


def test_which_layers_keep_their_statistics() -> None:
    model = Normalised()
    train_mode(model)
    assert modes(model) == {"body.1": True, "own": True}
    assert len(moving_buffers(model)) == 3
    train_mode(model, keep_statistics=True)
    assert modes(model) == {"body.1": False, "own": False}
    assert model.head.training
    assert moving_buffers(model) == []
    model.body.requires_grad_(False)
    train_mode(model)
    assert modes(model) == {"body.1": False, "own": True}


def test_trials_with_kept_statistics_are_ranked_by_the_plain_validation_loss(tiny_folder: Path, tmp_path: Path) -> None:
    plugins = load_tiny(tmp_path)
    config = TrainConfig(dataset=str(tiny_folder), backbone="tiny", batch_norm="keep", device="cpu", precision="fp32")
    data = prepare(config, plugins)
    model = build_model(plugins.backbone("tiny"), 3, 8, seed=1)
    model[1].running_mean.fill_(0.5)
    assert rank_loss(config, model.state_dict(), data, plugins) is None
    kept = shuffled_loss(model, config, data, plugins)
    assert not model[1].training
    assert kept != shuffled_loss(model, config.model_copy(update={"batch_norm": "train"}), data, plugins)


def test_factors_of_the_head_and_of_the_groups_before_it() -> None:
    mine = backbone(deep, head="head")
    model = build_model(mine, 3, 8, seed=1)
    scales = lr_scales(model, mine, 0.5, 10.0)
    assert {scales[name] for name in scales if name.startswith("head.")} == {10.0}
    assert {scales[name] for name in scales if name.startswith("body.")} == {0.5}


def test_a_factor_on_the_heads_rate_is_that_rate(tiny_folder: Path, tmp_path: Path) -> None:
    """With the body frozen, so that the head alone trains, a factor of 10 is a rate ten times as high."""
    plugins, states = load_tiny(tmp_path), []
    shared: dict[str, Any] = {"backbone": "tiny", "device": "cpu", "freeze": "backbone", "precision": "fp32"}
    for name, more in {"factor": {"lr": 0.001, "head_lr_factor": 10}, "rate": {"lr": 0.01}}.items():
        list(run.train(str(tiny_folder), output=tmp_path / name, plugins=plugins, epochs=2, **shared, **more))
        states.append(weights(tmp_path / name))
    assert all(torch.allclose(value, states[1][name], atol=1e-6) for name, value in states[0].items())


def test_a_run_of_an_earlier_version_goes_on_only_as_it_was_made(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", {"train": 4, "val": 2}, side=8)
    plugins = load_tiny(tmp_path)
    source = build_model(plugins.backbone("tiny"), 7, 8, seed=5)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "weights")
    given: dict[str, Any] = {"backbone": "tiny", "weights": str(tmp_path / "weights"), "device": "cpu", "batch_size": 4}
    next(run.train(str(folder), output=tmp_path / "run", plugins=plugins, epochs=2, **given))
    record = read_json(tmp_path / "run" / "run.json")
    del record["config"]["batch_norm"]
    write_json(tmp_path / "run" / "run.json", record)
    with pytest.raises(CheckpointError, match="batch_norm"):
        list(run.train(str(folder), output=tmp_path / "run", plugins=plugins, epochs=2, **given))
    given["batch_norm"] = "train"
    assert list(run.train(str(folder), output=tmp_path / "run", plugins=plugins, epochs=2, **given))
