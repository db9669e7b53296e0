"""Compiling the network for full batches: with a compiler of the test's own, on real steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_trainer import network, same, settings, training
from torch import Tensor, nn

from automl_pt.config import TrainConfig, as_made
from automl_pt.core.errors import DeviceLostError
from automl_pt.training.cuda.compile import CompiledStep, compiled
from automl_pt.training.loop import train


def run(compiler: Callable[[nn.Module], Callable[[Tensor], Tensor]]) -> Any:
    """Train with 23 images in batches of 4."""
    ours = training(settings(), network(dropout=0.3))
    ours.take_step = CompiledStep(ours.step, 4, lambda: ours.step, compiler=compiler)
    ours.notes = [note for result in train(ours) for note in result.notes]
    return ours


def plain() -> Any:
    ours = training(settings(), network(dropout=0.3))
    list(train(ours))
    return ours


def test_full_batches_are_compiled_and_no_others() -> None:
    sizes: list[int] = []

    def compiler(model: nn.Module) -> Callable[[Tensor], Tensor]:
        def forward(images: Tensor) -> Tensor:
            sizes.append(len(images))
            logits: Tensor = model(images)
            return logits

        return forward

    ours = run(compiler)
    assert set(sizes) == {4}
    assert len(sizes) == 1 + 3 * 5
    assert ours.notes == []
    assert same(ours.model, plain().model)


def fails(error: Exception) -> Callable[[nn.Module], Callable[[Tensor], Tensor]]:
    def compiler(model: nn.Module) -> Callable[[Tensor], Tensor]:
        def forward(images: Tensor) -> Tensor:
            model(images)  # changes the statistics, and is undone
            raise error

        return forward

    return compiler


def test_a_compiler_that_fails_ends_no_run() -> None:
    ours = run(fails(NotImplementedError("no such device")))
    assert ours.notes == ["the network is not compiled: NotImplementedError"]
    assert same(ours.model, plain().model)


def test_a_lost_device_is_no_failure_of_the_compiler() -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run(fails(error))
    assert "illegal memory access" in DeviceLostError(error).given


def test_a_cpu_compiles_nothing() -> None:
    ours = training(settings(compile="always"))
    assert ours.take_step is ours.step


def test_records_of_earlier_versions_still_open() -> None:
    assert TrainConfig(dataset="drawn", compile="auto").compile == "always"  # type: ignore[arg-type]
    assert as_made({"compile": "auto"})["compile"] == "always"


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns of what it could do
def test_a_compiled_and_recorded_step_is_near_the_plain_one() -> None:
    from automl_pt.training.cuda.graph import GraphedStep
    from automl_pt.training.step import Step

    device, models = torch.device("cuda", 0), []
    images, labels = torch.rand(8, 3, 8, 8, device=device), torch.arange(8, device=device) % 3
    for forward in (None, compiled):
        model = network().to(device)
        step = Step(model, settings(), device=device, precision="fp32")
        step.forward = model if forward is None else forward(model)
        take = GraphedStep(step, 8)
        for _ in range(10):
            take(images, labels, lr=0.01)
        models.append({name: value.float().cpu() for name, value in model.state_dict().items()})
    for name, value in models[0].items():
        assert torch.allclose(models[1][name], value, atol=1e-3), name
