"""Compiling only where it pays: a clock and a compiler of the test's own, on real steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_trainer import network, same, settings, training
from torch import Tensor, nn

from automl_pt.training.cuda.compile import COST, GAIN, TIMED, WARM_UP, CompiledWhenItPays, clock_of, compiled, pays
from automl_pt.training.cuda.graph import TakeStep
from automl_pt.training.loop import train


@pytest.mark.parametrize(
    ("step_seconds", "steps_left", "expected"),
    [
        (0.01, 100, False),  # a second of training
        (0.01, 20_000, False),  # 200 s, of which 40 may be saved
        (0.01, 40_000, True),  # 400 s, of which 80 may be saved
        (10.0, 0, False),
        (COST / GAIN, 1, False),  # only just as much as it costs
    ],
)
def test_compiling_must_earn_its_cost(step_seconds: float, steps_left: int, expected: bool) -> None:
    assert pays(step_seconds, steps_left) is expected


class Machine:
    """A clock that a step moves on, by more or less once the network is compiled."""

    def __init__(self, plain: float, fast: float) -> None:
        self.time, self.plain, self.fast = 0.0, plain, fast
        self.compiled = False

    def clock(self) -> float:
        return self.time

    def compile(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        self.compiled = True
        return lambda images: model(images)


def run(machine: Machine, **compiler: Any) -> Any:
    """Train with 23 images in batches of 4, for so many epochs that both kinds of step are timed."""
    ours = training(settings(epochs=12, patience=12), network(dropout=0.3))

    def record() -> TakeStep:
        def take(*batch: Tensor, lr: float) -> Tensor:
            machine.time += machine.plain if ours.step.forward is ours.model else machine.fast
            return ours.step(*batch, lr=lr)

        return take

    options = {"compiler": machine.compile, "clock": machine.clock, **compiler}
    ours.take_step = CompiledWhenItPays(ours.step, 4, record, ours.steps_left, **options)
    ours.notes = [note for result in train(ours) for note in result.notes]
    return ours


def plain() -> Any:
    ours = training(settings(epochs=12, patience=12), network(dropout=0.3))
    list(train(ours))
    return ours


def test_a_short_run_is_not_compiled() -> None:
    machine = Machine(plain=0.1, fast=0.01)
    ours = run(machine)
    assert (machine.compiled, ours.take_step.decided, ours.notes) == (False, True, [])
    assert same(ours.model, plain().model)


def test_a_long_run_is_compiled_and_told() -> None:
    machine = Machine(plain=100.0, fast=80.0)
    ours = run(machine)
    assert ours.step.forward is not ours.model
    assert ours.notes == ["the network was compiled: 80000.0 ms a step, 100000.0 before"]
    assert same(ours.model, plain().model)


def test_what_is_not_faster_is_given_up() -> None:
    ours = run(Machine(plain=100.0, fast=100.0))
    assert ours.step.forward is ours.model
    assert ours.notes == ["steps run without compiling: the compiled network was not faster"]


def test_a_compiler_that_fails_ends_no_run() -> None:
    def broken(model: nn.Module) -> Callable[[Tensor], Tensor]:
        def forward(images: Tensor) -> Tensor:
            raise NotImplementedError("no such device")

        return forward

    ours = run(Machine(plain=100.0, fast=1.0), compiler=broken)
    assert ours.notes == ["steps run without compiling: the network could not be compiled: NotImplementedError"]
    assert same(ours.model, plain().model)


def test_the_steps_left_are_those_of_the_whole_run() -> None:
    ours = training(settings(epochs=3), network())
    assert ours.steps_left() == 3 * 6
    next(train(ours))
    assert ours.steps_left() == 2 * 6


def test_a_cpu_compiles_nothing() -> None:
    ours = training(settings(compile="auto"))
    assert ours.take_step is ours.step
    assert WARM_UP > 0 < TIMED
    assert clock_of(torch.device("cpu"))() > 0


@pytest.mark.gpu
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
