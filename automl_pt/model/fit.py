"""Compares a network with weights before memory is taken: a model directory may name any network over any weights.

A network of ours is first built on torch's meta device, which holds shapes without numbers. Networks of other plugins
may not stand that; while they are built, their parameters are counted, and building ends where they are too many.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import assemble
from automl_pt.core.errors import WeightsError

#: numbers that building may need beside twice those of the weights: a published head that is replaced, 128 MB
SPARE_NUMBERS = 32 << 20


def outline(backbone: Backbone, num_classes: int, image_size: int) -> nn.Module | None:
    """Return the network without its numbers, in eval mode; None where it cannot be built so."""
    try:
        with torch.device("meta"):
            return assemble(backbone, num_classes, image_size).eval()
    except Exception:
        # whatever an unusual network raises here, building it in full raises it again or does without
        return None


def takes_images(network: nn.Module, num_classes: int, image_size: int) -> bool:
    """Say whether an outline gives logits for an image of this size; False where that cannot be told."""
    try:
        with torch.no_grad():
            logits = network(torch.zeros(1, 3, image_size, image_size, device="meta"))
    except Exception:
        # torch knows no shape for some operations; a pass with numbers tells then
        return False
    return isinstance(logits, Tensor) and logits.shape == (1, num_classes)


def misfits(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Say where names, shapes and kinds of `tensors` are not those of the network's state `wanted`."""
    found = [f"{name} is missing" for name in wanted if name not in tensors]
    found += [f"{name} is not in the network" for name in tensors if name not in wanted]
    return found + [
        f"{name} is {_described(tensor)}, the network's is {_described(wanted[name])}"
        for name, tensor in tensors.items()
        if name in wanted and (tensor.shape != wanted[name].shape or tensor.dtype != wanted[name].dtype)
    ]


@contextmanager
def no_larger_than(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Raise WeightsError in the block where a network with far more numbers than `tensors` is being built."""
    held = sum(tensor.numel() for tensor in tensors.values())
    thread, count = threading.get_ident(), 0

    def registered(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        if parameter is None or threading.get_ident() != thread or is_lazy(parameter):
            return
        count += parameter.numel()
        if count > 2 * held + SPARE_NUMBERS:
            raise WeightsError(
                "The weights are too small for the network",
                given=f"{held:,} numbers; the network has more than {count:,}",
                remedy="fetch or copy the model directory again",
            )

    hook = register_module_parameter_registration_hook(registered)
    try:
        yield
    finally:
        hook.remove()


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
