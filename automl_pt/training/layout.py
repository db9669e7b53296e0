"""Chooses the memory layout of a model and its images, and the implementation of its convolutions."""

from __future__ import annotations

import torch
from torch import nn

from automl_pt.training.cpu.depthwise import use_float32_where_depthwise
from automl_pt.training.cpu.small_maps import use_matrix_products
from automl_pt.training.device import NumberFormat


def has_channels_last(device: torch.device, precision: NumberFormat) -> bool:
    """Return whether images and weights use channels_last memory.

    They do on a CPU, and for 16-bit number formats. On a CPU in float32 this was measured to take 0.3 to 1.0 of the
    time of the other layout, for seven networks of five families at 32 to 224 px; ResNets at 64 px and less need
    `use_matrix_products` for it (benchmarks/small_maps.py).
    """
    return device.type == "cpu" or precision != "fp32"


def arrange(model: nn.Module, device: torch.device, precision: NumberFormat) -> nn.Module:
    """Move `model` to the device with the fastest layout and convolutions there; return it."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # fp32 is float32: cuDNN's convolutions round to 10 bits by default
    layout = torch.channels_last if has_channels_last(device, precision) else torch.contiguous_format
    # PyTorch's annotations lack the memory format in this call
    model = model.to(device, memory_format=layout)  # type: ignore[call-overload]
    if device.type != "cpu" or precision == "fp16":
        return model
    model = use_matrix_products(model)
    return use_float32_where_depthwise(model) if precision == "bf16" else model
