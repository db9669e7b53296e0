"""Reports the failures of checks, and blocks the network."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import build_model
from automl_pt.core.errors import PluginError


def expect(held: bool, rule: str, *, came: str, look: str) -> None:
    """Raise PluginError unless the rule held: it states the rule, the result, and where to look."""
    if not held:
        raise PluginError(rule, given=came, remedy=look)


@contextmanager
def no_network() -> Iterator[None]:
    """Make every connection fail at once, as on a machine without a network; a socket in a folder still works."""

    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise OSError("the network is closed during this check")

    def closed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: socket.socket, *arguments: Any) -> Any:
            is_local = self.family == getattr(socket, "AF_UNIX", None)
            return function(self, *arguments) if is_local else refuse()

        return call

    before = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")}
    lookup = socket.getaddrinfo
    for name, function in before.items():
        setattr(socket.socket, name, closed(function))
    socket.getaddrinfo = refuse
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(socket.socket, name, function)
        socket.getaddrinfo = lookup


FEW, MANY = 2, 7
#: images in a batch
BATCH = 3
#: side of the images for all checks, if the backbone accepts it
SMALL = 32


@dataclass(frozen=True)
class BackboneCase:
    """A backbone under test at one image size: built for MANY and for FEW classes, with a batch of images."""

    backbone: Backbone
    size: int
    model: nn.Module
    few: nn.Module
    images: Tensor

    def logits(self, model: nn.Module | None = None, images: Tensor | None = None) -> Tensor:
        """Pass images through a model without gradients; by default the case's own."""
        with torch.no_grad():
            logits: Tensor = (model or self.model)(self.images if images is None else images)
        return logits


def build(backbone: Backbone, size: int, seed: int = 1, *, classes: int = MANY, pretrained: bool = False) -> nn.Module:
    """Build the backbone in eval mode."""
    model = build_model(backbone, classes, size, pretrained=pretrained, seed=seed)
    model.eval()  # the plugin may return it in either mode
    return model


def make_case(backbone: Backbone, size: int) -> BackboneCase:
    """Build the backbone twice and draw a batch of images."""
    images = torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(size))
    return BackboneCase(backbone, size, build(backbone, size), build(backbone, size, classes=FEW), images)
