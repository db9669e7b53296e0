"""A plugin file with networks as strangers write them: some are refused by name, the others train as any does."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from automl_pt import Backbone, hookimpl

NAN = float("nan")
KEPT: dict[Any, nn.Module] = {}


def body(channels: int = 3) -> list[nn.Module]:
    return [nn.Conv2d(channels, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]


def plain(classes: int) -> nn.Sequential:
    return nn.Sequential(*body(), nn.Linear(32, classes))


class Net(nn.Module):
    """A plain network whose passes a function changes: of the network, its images, and whether it trains."""

    def __init__(self, net: nn.Module, change: Callable[[nn.Module, Tensor, bool], Any]) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, images: Tensor) -> Any:
        return self.change(self.net, images, self.training)


class Tied(nn.Module):
    def __init__(self, classes: int, twice: bool) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 3, padding=1)
        self.b = self.a if twice else nn.Conv2d(8, 8, 3, padding=1)
        self.b.weight = self.a.weight
        self.head = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).relu()
        logits: Tensor = self.head((self.b(self.a(x).relu()) + x).mean((2, 3)))
        return logits


class Extra(nn.Module):
    """State that is no parameter and no buffer: a tensor, or anything else."""

    factor = 1.0

    def __init__(self, as_tensor: bool) -> None:
        super().__init__()
        self.as_tensor = as_tensor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def get_extra_state(self) -> Any:
        return torch.tensor(self.factor) if self.as_tensor else {"factor": self.factor}

    def set_extra_state(self, state: Any) -> None:
        self.factor = float(state) if self.as_tensor else state["factor"]


class Logits:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Silent(nn.Sequential):
    """Its eval() and train() return nothing."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)

    def eval(self) -> Any:
        super().train(False)


def ends() -> Any:
    raise SystemExit(0)


def changed(change: Callable[[nn.Module, Tensor, bool], Any], channels: int = 3) -> Callable[[int], nn.Module]:
    return lambda classes: Net(nn.Sequential(*body(channels), nn.Linear(32, classes)), change)


def cast(dtype: torch.dtype) -> Callable[[int], nn.Module]:
    return lambda classes: Net(plain(classes).to(dtype), lambda net, x, t: net(x.to(dtype)))


def wrapped(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[int], nn.Module]:
    return lambda classes: nn.Sequential(wrap(nn.Sequential(*body())), nn.Linear(32, classes))


def kept(classes: int) -> nn.Module:
    return KEPT.setdefault(classes, plain(classes))


def draws(net: nn.Module, x: Tensor, trains: bool) -> Any:
    return net(x * float(np.random.rand() + random.random() + random.gauss(0, 1))) if trains else net(x)


NETWORKS: dict[str, Callable[[int], Any]] = {
    "pair": changed(lambda net, x, t: (net(x),) * 2),
    "pair-train": changed(lambda net, x, t: (net(x),) * 2 if t else net(x)),
    "wide-train": changed(lambda net, x, t: torch.cat([net(x)] * 2, 1) if t else net(x)),
    "frozen": lambda classes: plain(classes).requires_grad_(False),
    "empty": lambda classes: Net(nn.Identity(), lambda net, x, t: x.mean((2, 3))[:, :classes]),
    "detached": changed(lambda net, x, t: net(x).detach() if t else net(x)),
    "nan": changed(lambda net, x, t: net(x) * NAN),
    "nan-train": changed(lambda net, x, t: net(x) * (NAN if t else 1)),
    "eight": changed(lambda net, x, t: net(x.view(8, 3, 32, 32))),
    "eight-train": changed(lambda net, x, t: net(x.reshape(8, 3, 32, 32)) if t else net(x)),
    "grey": changed(lambda net, x, t: net(x), 1),
    "integers": changed(lambda net, x, t: net(x).argmax(1, keepdim=True).repeat(1, 3)),
    "extra": lambda classes: nn.Sequential(*body(), Extra(False), nn.Linear(32, classes)),
    "double-raw": lambda classes: plain(classes).double(),
    "exit": changed(lambda net, x, t: ends()),
    "exit-train": changed(lambda net, x, t: ends() if t else net(x)),
    "exit-build": lambda classes: ends(),
    "nothing": lambda classes: None,
    "key-error": changed(lambda net, x, t: {}["logits"] if t else net(x)),
    # -- and those that train
    "tied": lambda classes: Tied(classes, twice=False),
    "twice": lambda classes: Tied(classes, twice=True),
    "parallel": lambda classes: nn.DataParallel(plain(classes)),
    "parallel-part": wrapped(nn.DataParallel),
    "script": lambda classes: torch.jit.script(plain(classes)),
    "script-part": wrapped(torch.jit.script),
    "extra-tensor": lambda classes: nn.Sequential(*body(), Extra(True), nn.Linear(32, classes)),
    "double": cast(torch.float64),
    "bfloat16": cast(torch.bfloat16),
    "copied": lambda classes: copy.deepcopy(kept(classes)),
    "draws": changed(draws),
    "lazy": lambda classes: nn.Sequential(*body(), nn.LazyLinear(classes)),
    "object": changed(lambda net, x, t: Logits(net(x)) if t else net(x)),
    "weight-norm": wrapped(lambda part: nn.Sequential(nn.utils.weight_norm(part[0]), *part[1:])),
    "silent": lambda classes: Silent(*body(), nn.Linear(32, classes)),
    "in-place": changed(lambda net, x, t: net(x.mul_(2))),
    "kept": kept,
}


def builder(make: Callable[[int], Any]) -> Callable[[int, bool], Any]:
    return lambda num_classes, pretrained: make(num_classes)


@hookimpl
def register_backbones() -> list[Backbone]:
    return [Backbone(f"strange/{name}", builder(make), image_size=32) for name, make in NETWORKS.items()]
