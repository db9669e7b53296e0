"""Checks that weights fit a network before memory is allocated, because a model directory may combine any two.

A built-in network is first built on torch's meta device, which holds shapes without numbers. Plugins' networks may
not support that; while they are built, their parameters are counted, and building is aborted if there are too many.
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

#: numbers that building may need beside twice those of the weights, such as a published head that is replaced; 128 MB
SPARE_NUMBERS = 32 << 20
#: attribute names of the wrapped network in DataParallel and torch.compile
WRAPPERS = ("module", "_orig_mod")


def outline(backbone: Backbone, num_classes: int, image_size: int, channels: int = 3) -> nn.Module | None:
    """Return the network without its numbers, in eval mode; None if it cannot be built so."""
    try:
        with torch.device("meta"):
            network = assemble(backbone, num_classes, image_size, channels)
            network.eval()  # the plugin may return it in either mode
            return network
    except Exception:
        # any error here is raised again when the network is built in full, or does not matter
        return None


def takes_images(network: nn.Module, num_classes: int, image_size: int, channels: int = 3) -> bool:
    """Return whether an outline returns logits for an image of this size; False if that cannot be determined."""
    try:
        with torch.no_grad():
            logits = network(torch.zeros(1, channels, image_size, image_size, device="meta"))
    except Exception:
        # torch has no shape rule for some operations; a pass with numbers decides then
        return False
    return isinstance(logits, Tensor) and logits.shape == (1, num_classes)


def misfits(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Return where names, shapes and kinds of `tensors` differ from the network's state `wanted`."""
    found = [f"{name} is missing" for name in wanted if name not in tensors]
    found += [f"{name} is not in the network" for name in tensors if name not in wanted]
    return found + [
        f"{name} is {_described(tensor)}, the network's is {_described(wanted[name])}"
        for name, tensor in tensors.items()
        if name in wanted and (tensor.shape != wanted[name].shape or tensor.dtype != wanted[name].dtype)
    ]


def unwrapped(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors under the names of the network's state `wanted`.

    Earlier versions stored networks with their DataParallel or torch.compile wrappers, whose names then precede those
    of the tensors.
    """
    if tensors.keys() == wanted.keys():
        return tensors
    names = {_without_wrappers(name): name for name in wanted}
    found = {names.get(_without_wrappers(name), name): tensor for name, tensor in tensors.items()}
    return found if len(found) == len(tensors) else tensors


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


@contextmanager
def no_larger_than(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Raise WeightsError in the block if a network with far more numbers than `tensors` is being built."""
    present = sum(tensor.numel() for tensor in tensors.values())
    thread, count = threading.get_ident(), 0

    def registered(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        if parameter is None or threading.get_ident() != thread or is_lazy(parameter):
            return
        count += parameter.numel()
        if count > 2 * present + SPARE_NUMBERS:
            raise WeightsError(
                "the weights are too small for the network",
                given=f"{present:,} numbers; the network has more than {count:,}",
                remedy="download or copy the model directory again",
            )

    hook = register_module_parameter_registration_hook(registered)
    try:
        yield
    finally:
        hook.remove()


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
