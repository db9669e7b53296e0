"""Our SGD against PyTorch's own, bit for bit, and what it must not import."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from automl_pt.training.sgd import SGD


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)) for _ in range(2))
    second.load_state_dict(first.state_dict())
    return first, second


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_equal_bit_for_bit_to_pytorch(momentum: float, weight_decay: float) -> None:
    ours, theirs = networks()
    settings = {"lr": 0.1, "momentum": momentum, "weight_decay": weight_decay}
    own = SGD(list(ours.parameters()), **settings)
    their = torch.optim.SGD(theirs.parameters(), **settings, nesterov=momentum > 0, fused=True)
    for step in range(5):
        own.lr = their.param_groups[0]["lr"] = 0.1 / (step + 1)
        images = torch.randn(4, 5)
        for model, optimizer in ((ours, own), (theirs, their)):
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
    for first, second in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("kernel", [1, 3])
def test_weights_whose_channels_lie_innermost_are_updated_as_others_and_not_copied(kernel: int) -> None:
    torch.manual_seed(0)
    weight, gradient = torch.randn(4, 6, kernel, kernel), torch.randn(4, 6, kernel, kernel)
    updated = []
    for layout in (torch.contiguous_format, torch.channels_last):
        parameter = nn.Parameter(weight.to(memory_format=layout, copy=True))
        optimizer = SGD([parameter], lr=0.1, momentum=0.9, weight_decay=0.1)
        for factor in (1.0, 2.0):
            parameter.grad = (factor * gradient).to(memory_format=layout)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile:
                optimizer.step()
        assert "aten::copy_" not in {event.key for event in profile.key_averages()}
        updated.append(parameter.detach())
    assert updated[1].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(*updated)


def test_a_learning_rate_may_be_a_tensor() -> None:
    ours, theirs = networks()
    for model, lr in ((ours, 0.25), (theirs, torch.tensor(0.25))):
        optimizer = SGD(list(model.parameters()), lr=0.0, momentum=0.9, weight_decay=0.0)
        optimizer.lr = lr
        model(torch.ones(2, 5)).square().mean().backward()
        optimizer.step()
    for first, second in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(first, second)


def test_parameters_without_a_gradient_stay() -> None:
    model, _ = networks()
    before = model[2].weight.clone()  # type: ignore[union-attr]
    optimizer = SGD(list(model.parameters()), lr=1.0, momentum=0.9, weight_decay=0.5)
    optimizer.step()
    model[0](torch.ones(2, 5)).sum().backward()  # type: ignore[index,operator]
    optimizer.step()
    assert torch.equal(model[2].weight, before)  # type: ignore[arg-type,union-attr]


def test_the_scaler_skips_a_step_that_is_not_finite() -> None:
    model, _ = networks()
    optimizer, scaler = (
        SGD(list(model.parameters()), lr=1.0, momentum=0.9, weight_decay=0.0),
        torch.amp.GradScaler("cpu"),
    )
    before = [parameter.clone() for parameter in model.parameters()]
    scaler.scale(model(torch.full((2, 5), float("inf"))).sum()).backward()
    scaler.step(optimizer)  # type: ignore[arg-type]
    scaler.update()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    optimizer.zero_grad()
    scaler.scale(model(torch.ones(2, 5)).sum()).backward()
    scaler.step(optimizer)  # type: ignore[arg-type]
    assert not torch.equal(before[0], next(iter(model.parameters())))


def test_a_step_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch\nfrom automl_pt.training.sgd import SGD\nweight = torch.ones(3, requires_grad=True)\n"
        "optimizer = SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.0)\nweight.sum().backward()\n"
        "optimizer.step()\nassert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
