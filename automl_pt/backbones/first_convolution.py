"""Makes a network for RGB images one for any number of channels, by its first convolution.

The weights of a network that is pretrained on photographs are adapted as timm does it (`timm.models.adapt_input_conv`,
Wightman, PyTorch Image Models, 2019): for one channel the kernels of red, green and blue are added up, so that grey
images give what their RGB repetition gave; for N channels they are repeated in turn and scaled by 3 / N, so that the
response keeps its size. Random weights are changed in the same way, which draws no random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from automl_pt.core.errors import ConfigError

RGB = 3


def adapt_kernel(kernel: Tensor, channels: int) -> Tensor:
    """Return a kernel [K, 3, h, w] for RGB as one [K, channels, h, w]."""
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    repeats = -(-channels // RGB)
    return kernel.repeat(1, repeats, 1, 1)[:, :channels] * (RGB / channels)


def adapt_network(model: nn.Module, channels: int, name: str) -> nn.Module:
    """Replace the kernel of the first convolution of RGB images; raise ConfigError if the network has none."""
    if channels == RGB:
        return model
    layers = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    first = next((layer for layer in layers if layer.in_channels == RGB and layer.groups == 1), None)
    if first is None or first._parameters.get("weight") is None:
        raise ConfigError(
            [
                f"channels: {name} takes RGB images only, because no convolution of three channels begins it; give "
                "--channels 3, or choose another --backbone"
            ]
        )
    with torch.no_grad():
        first.weight = nn.Parameter(adapt_kernel(first.weight, channels), requires_grad=first.weight.requires_grad)
    first.in_channels = channels
    return model


def adapt_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return weights for RGB images as those of `model`, if only its first convolution has other channels."""
    wanted = model.state_dict()
    other = [name for name, tensor in tensors.items() if _is_of_rgb(tensor, wanted.get(name))]
    if len(other) != 1:
        return tensors
    return {**tensors, other[0]: adapt_kernel(tensors[other[0]], wanted[other[0]].shape[1])}


def _is_of_rgb(tensor: Tensor, wanted: Tensor | None) -> bool:
    if wanted is None or tensor.ndim != 4 or wanted.ndim != 4 or not tensor.is_floating_point():
        return False
    same = (tensor.shape[0], *tensor.shape[2:]) == (wanted.shape[0], *wanted.shape[2:])
    return same and tensor.shape[1] == RGB != wanted.shape[1]
