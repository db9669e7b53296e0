"""What an optimiser must be able to do, checked on a tiny network on the CPU."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from automl_pt.backbones.random_state import kept_random_state
from automl_pt.config import TrainConfig
from automl_pt.core.errors import AutomlError
from automl_pt.optimizer import PUBLISHED, Optimizer
from automl_pt.testing.contract import expect, no_network
from automl_pt.training.optimizers import LibraryOptimizer, make_optimizer
from automl_pt.training.sgd import SGD

#: steps before and after the point at which a run is interrupted
BEFORE, AFTER = 3, 3
_BUILD = "the function given as Optimizer(build=...)"


def check_optimizer(optimizer: Optimizer | str) -> None:
    """Raise PluginError for the first point of the contract that `optimizer`, or the one of that name, does not keep.

    Needs no network, no GPU and no data.
    """
    if isinstance(optimizer, str):
        from automl_pt.plugins.manager import load_plugins

        optimizer = load_plugins().named(Optimizer, optimizer)
    config = _check_fields(optimizer)
    with kept_random_state(), no_network():
        for check in CHECKS:
            _run(check, optimizer, config)


def _check_fields(optimizer: Optimizer) -> TrainConfig:
    """Check the published values and ranges; return the settings of a run with them."""
    look = f"the arguments of Optimizer({optimizer.name!r}, ...)"
    unknown = sorted(set(optimizer.published) - set(PUBLISHED))
    rule = f"`published` holds values of {', '.join(PUBLISHED)}"
    expect(not unknown, rule, came=", ".join(unknown), look=look)
    values: dict[str, Any] = {"weight_decay": 0.0, **optimizer.published}
    try:
        config = TrainConfig(dataset="none", optimizer=optimizer.name, **values)
    except ValueError as error:
        expect(False, "published values are within the ranges of the settings", came=str(error)[:500], look=look)
        raise
    unknown = sorted(set(optimizer.fine_tuning) - set(PUBLISHED))
    expect(not unknown, rule.replace("published", "fine_tuning", 1), came=", ".join(unknown), look=look)
    lr = config.lr
    for name, (low, high) in (("search_lr", optimizer.search_lr), ("fine_tuning_lr", optimizer.fine_tuning_lr)):
        right = 0 < low <= high < math.inf
        expect(right, f"{name} goes from a learning rate above 0 to a higher one", came=f"{low}, {high}", look=look)
    low, high = optimizer.search_lr
    expect(low <= lr <= high, "search_lr holds the published rate", came=f"{lr:g} and {low:g} to {high:g}", look=look)
    return config


class _Case:
    """A tiny network with its optimiser, and batches that are the same for all."""

    def __init__(self, optimizer: Optimizer, config: TrainConfig) -> None:
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
        trained = dict(self.model.named_parameters())
        scales = {name: 0.5 if name.startswith("0.") else 1.0 for name in trained}
        self.optimizer: SGD | LibraryOptimizer = make_optimizer(optimizer, trained, config, scales)

    def train(self, first: int, last: int, lr: float) -> float:
        """Take the steps from `first` to before `last`; return the last loss."""
        loss = torch.zeros(())
        for step in range(first, last):
            random = torch.Generator().manual_seed(step % 5)
            images = torch.randn(8, 4, generator=random)
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(images), images[:, :3].argmax(1))
            torch.autograd.backward(loss)
            self.optimizer.lr = lr
            self.optimizer.step()
        return loss.item()

    def state(self) -> list[Tensor]:
        """Return copies of the weights."""
        return [tensor.clone() for tensor in self.model.state_dict().values()]


def check_learning(optimizer: Optimizer, config: TrainConfig) -> None:
    """Check that the published rate lowers the loss of a tiny problem, with finite weights."""
    case = _Case(optimizer, config)
    first = case.train(0, 1, config.lr)
    last = case.train(1, 200, config.lr)
    finite = all(bool(parameter.isfinite().all()) for parameter in case.model.parameters())
    came = f"{first:.4f} at first, {last:.4f} after 200 steps at {config.lr:g}"
    expect(finite and last < first, "steps at the published rate lower the loss", came=came, look=_BUILD)


def check_rate(optimizer: Optimizer, config: TrainConfig) -> None:
    """Check that the rate set before a step is obeyed: at 0 no weight changes."""
    case = _Case(optimizer, config)
    case.train(0, 1, config.lr)
    before = [parameter.detach().clone() for parameter in case.model.parameters()]
    case.optimizer.lr = 0.0
    case.optimizer.step()
    moved = sum(
        not torch.allclose(old, new, atol=1e-6) for old, new in zip(before, case.model.parameters(), strict=True)
    )
    look = "a rate that the optimiser keeps for itself: take group['lr'] in every step"
    if not optimizer.averages:  # an average moves on its own
        expect(not moved, "at a rate of 0 no weight changes", came=f"{moved} tensors changed", look=look)


def check_resume(optimizer: Optimizer, config: TrainConfig) -> None:
    """Check that state_dict holds all: a run that is saved and loaded ends bit for bit as an unbroken one."""
    whole, broken, again = (_Case(optimizer, config) for _ in range(3))
    whole.train(0, BEFORE + AFTER, config.lr)
    broken.train(0, BEFORE, config.lr)
    stream = io.BytesIO()
    torch.save({"model": broken.model.state_dict(), "optimizer": broken.optimizer.state_dict()}, stream)
    saved = torch.load(io.BytesIO(stream.getvalue()), weights_only=True)
    again.model.load_state_dict(saved["model"])
    again.optimizer.load_state_dict(saved["optimizer"])
    again.train(BEFORE, BEFORE + AFTER, config.lr)
    differ = sum(not torch.equal(one, two) for one, two in zip(whole.state(), again.state(), strict=True))
    look = "what the optimiser keeps outside of `state` and `param_groups`"
    expect(not differ, "an interrupted run ends as an unbroken one", came=f"{differ} tensors differ", look=look)


def check_undone(optimizer: Optimizer, config: TrainConfig) -> None:
    """Check that a trial step leaves no trace once weights and state are restored."""
    plain, tried = (_Case(optimizer, config) for _ in range(2))
    before, put_back = tried.state(), tried.optimizer.remember()
    tried.train(0, 2, config.lr)
    put_back()
    tried.model.load_state_dict(dict(zip(tried.model.state_dict(), before, strict=True)))
    for case in (plain, tried):
        case.train(0, AFTER, config.lr)
    differ = sum(not torch.equal(one, two) for one, two in zip(plain.state(), tried.state(), strict=True))
    look = "what the optimiser keeps outside of `state` and `param_groups`"
    expect(not differ, "a step that is undone leaves no trace", came=f"{differ} tensors differ", look=look)


def check_unused(optimizer: Optimizer, config: TrainConfig) -> None:
    """Check that a parameter without a gradient stays as it is."""
    case = _Case(optimizer, config)
    parameter = case.model.get_parameter("0.weight")
    case.train(0, 2, config.lr)
    before = parameter.detach().clone()
    torch.autograd.backward(case.model(torch.randn(8, 4)).sum())
    parameter.grad = None
    case.optimizer.step()
    same = torch.equal(before, parameter)
    expect(same, "a parameter without a gradient stays", came="it changed", look="skip parameters whose grad is None")


def check_average(optimizer: Optimizer, config: TrainConfig) -> None:
    """Check that an average is another point than the trained one, which stays bit for bit."""
    if not optimizer.averages:
        return
    case = _Case(optimizer, config)
    assert isinstance(case.optimizer, LibraryOptimizer)
    case.train(0, 20, config.lr)
    before = [parameter.detach().clone() for parameter in case.model.parameters()]
    averages = [torch.empty_like(parameter) for parameter in before]
    case.optimizer.average_into(averages)
    other = any(not torch.equal(one, two) for one, two in zip(before, averages, strict=True))
    expect(other, "eval() puts an average into the parameters", came="the same weights", look="Optimizer(averages=...)")


def check_capturable(optimizer: Optimizer, config: TrainConfig) -> None:
    """Check that what can be recorded has its state in tensors that stay where they are."""
    case = _Case(optimizer, config)
    if not optimizer.capturable or isinstance(case.optimizer, SGD):
        return
    states = list(case.optimizer.inner.state.values())
    places = [value.data_ptr() for state in states for value in state.values() if isinstance(value, Tensor)]
    case.train(0, 3, config.lr)
    now = [value.data_ptr() for state in states for value in state.values() if isinstance(value, Tensor)]
    plain = [key for state in states for key, value in state.items() if not isinstance(value, Tensor)]
    came = f"not tensors: {sorted(set(plain))}" if plain else "tensors were replaced"
    right = bool(places) and places == now and not plain
    expect(right, "what is capturable keeps its state in the same tensors", came=came, look="Optimizer(capturable=...)")


def _run(check: Callable[[Optimizer, TrainConfig], None], optimizer: Optimizer, config: TrainConfig) -> None:
    try:
        check(optimizer, config)
    except AutomlError:
        raise
    except Exception as error:
        what = (check.__doc__ or "").partition("\n")[0].removeprefix("Check ")
        expect(False, what, came=f"{type(error).__name__}: {error}", look=_BUILD)


CHECKS: tuple[Callable[[Optimizer, TrainConfig], None], ...] = (
    check_resume,
    check_rate,
    check_undone,
    check_unused,
    check_average,
    check_capturable,
    check_learning,
)
