"""Parameters in groups from the input to the head: frozen, or with rates that fall towards the input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import build_model
from automl_pt.backbones.parameter_groups import freeze, lr_scales, parameter_groups
from automl_pt.config import TrainConfig, make
from automl_pt.core.errors import ConfigError, PluginError
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs import run
from automl_pt.training.sgd import SGD


class Net(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1))
        self.stem = nn.Conv2d(3, 4, 3)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, classes)

    def forward(self, images):
        return self.head(self.body(self.stem(images)).mean((2, 3)) + self.token)


def backbone(**fields):
    return Backbone("mine", lambda classes, pretrained: Net(classes), image_size=8, **fields)


def test_a_group_for_each_child_with_the_head_last():
    groups = parameter_groups(Net(2), backbone())
    assert groups == [
        ["token", "stem.weight", "stem.bias"],
        ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"],
        ["head.weight", "head.bias"],
    ]


def test_groups_as_they_are_told():
    told = backbone(param_groups=lambda model: [["stem"], ["body.0"], ["body.1", "token"]])
    assert [len(group) for group in parameter_groups(Net(2), told)] == [2, 2, 3, 2]


@pytest.mark.parametrize(("groups", "said"), [([["nowhere"]], "mine: nowhere"), ([], "mine: no group")])
def test_groups_of_modules_that_are_not_there(groups, said):
    with pytest.raises(
        PluginError, match=rf"(?s)groups name modules that its model does not have.*{said}.*named_modules"
    ):
        parameter_groups(Net(2), backbone(param_groups=lambda model: groups))


def test_rates_fall_towards_the_input():
    scales = lr_scales(Net(2), backbone(), 0.5)
    assert (scales["token"], scales["body.1.bias"], scales["head.bias"]) == (0.25, 0.5, 1)


def test_freezing_from_the_input_on():
    model = Net(2)
    freeze(model, backbone(), 2)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    with pytest.raises(ConfigError, match="mine has 3 groups; at most 2 freeze"):
        freeze(model, backbone(), 3)


def test_a_scaled_step_is_the_step_of_that_rate():
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    own = SGD(list(ours.parameters()), lr=0.1, momentum=0.9, weight_decay=0.01, scales=[0.5, 1])
    groups = [{"params": [theirs.weight], "lr": 0.05}, {"params": [theirs.bias], "lr": 0.1}]
    their = torch.optim.SGD(groups, momentum=0.9, weight_decay=0.01, nesterov=True, fused=True)
    for _ in range(3):
        for model, optimizer in ((ours, own), (theirs, their)):
            optimizer.zero_grad()
            torch.autograd.backward(model(torch.ones(4, 3)).pow(2).sum())
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "count"), [("resnet18", 6), ("densenet121", 6), ("timm/test_vit", 8), ("timm/test_resnet", 6)]
)
def test_built_in_groups_hold_every_parameter_once(name, count):
    found = load_plugins().backbone(name)
    model = build_model(found, 3, 32, seed=1)
    groups = parameter_groups(model, found)
    assert sorted(n for group in groups for n in group) == sorted(n for n, _ in model.named_parameters())
    assert len(groups) == count


@pytest.mark.parametrize("more", [{"freeze_groups": 1}, {"layer_decay": 0.5}])
def test_freezing_all_but_the_head_leaves_no_groups(more):
    with pytest.raises(ConfigError, match="freeze 'backbone' trains only the head: remove freeze_groups"):
        make(TrainConfig, {"dataset": "digits", "freeze": "backbone", **more})


def test_a_run_freezes_and_scales(tiny_folder: Path, tmp_path: Path):
    settings = {"backbone": "timm/test_resnet", "epochs": 1, "batch_size": 8, "threads": 1, "image_size": 32}
    settings["pretrained"] = False  # whose first weights are drawn from the seed, below as in the runs
    plugins, states = load_plugins(), {}
    for name, more in {"plain": {}, "frozen": {"freeze_groups": 1}, "decayed": {"layer_decay": 0.5}}.items():
        list(run.train(str(tiny_folder), output=tmp_path / name, plugins=plugins, device="cpu", **settings, **more))
        from automl_pt.model.load import load_model

        states[name] = load_model(tmp_path / name, plugins=plugins).network.state_dict()
    start = build_model(plugins.backbone("timm/test_resnet"), 3, 32, seed=1)
    first = parameter_groups(start, plugins.backbone("timm/test_resnet"))[0]
    assert all(torch.equal(states["frozen"][name], start.state_dict()[name]) for name in first)
    assert any(not torch.equal(states["plain"][name], start.state_dict()[name]) for name in first)
    assert any(not torch.equal(states["plain"][name], states["decayed"][name]) for name in first)
