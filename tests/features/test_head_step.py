"""The step of a head on features is the step of the training loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from automl_pt.config import TrainConfig
from automl_pt.features.head_step import HeadStep
from automl_pt.training.step import Step

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("settings", "weighted", "bias", "scales"),
    [
        ({}, False, True, None),
        ({"label_smoothing": 0.2}, False, True, None),
        ({}, True, True, None),
        ({"label_smoothing": 0.1, "momentum": 0.0}, True, True, None),
        ({"clip_grad_norm": 0.05, "weight_decay": 0.01}, False, True, None),
        ({}, False, False, None),
        ({}, False, True, {"0.weight": 10.0, "0.bias": 10.0}),
    ],
)
def test_the_step_of_a_head_is_that_of_the_training_loop(
    settings: dict[str, Any], weighted: bool, bias: bool, scales: dict[str, float] | None
) -> None:
    config = TrainConfig(dataset="none", **settings)
    torch.manual_seed(3)
    networks = [nn.Sequential(nn.Linear(12, 4, bias=bias)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    weights = torch.tensor([0.5, 2.0, 1.0, 1.5]) if weighted else None
    shared: dict[str, Any] = {"device": CPU, "class_weights": weights, "lr_scales": scales}
    steps = [Step(networks[0], config, precision="fp32", **shared), HeadStep(networks[1], config, **shared)]
    for number in range(6):
        features, labels = torch.randn(5, 12), torch.randint(4, (5,))
        expected, found = (step(features, labels, lr=0.1 / (1 + number)) for step in steps)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for (name, expected), (_, found) in zip(*(one.named_parameters() for one in networks), strict=True):
        assert torch.allclose(expected, found, rtol=1e-4, atol=1e-6), name
