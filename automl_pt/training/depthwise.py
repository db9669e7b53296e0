"""Depthwise and other grouped convolutions on a CPU, kept in float32 where bfloat16 is slow or wrong.

Each channel has a kernel of its own there, so that there is little to multiply, and the short format saves nothing;
PyTorch's gradients of such a convolution in bfloat16 take 2 to 15 times as long as in float32, but for 3x3 kernels
without a stride. It made EfficientNet-B0 at 64 px twice as slow to train (benchmarks/number_formats.py).

And where a tap of the kernel meets no pixel, as over a map of one pixel, PyTorch 2.15 may leave that tap's gradient
unwritten: whatever lay in memory, not-finite numbers, too. So over maps about as small as the kernel all convolutions
that `small_maps` does not compute as products stay in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def use_float32_where_depthwise(model: nn.Module) -> nn.Module:
    """Make the model's depthwise convolutions compute in float32 while it trains, others over small maps alone.

    Names, weights and hooks stay. Only `nn.Conv2d` itself is exchanged, in place. It is undone by `use_convolutions`.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = DepthwiseConv2d
    return model


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` in all but its number format: float32 while it trains under autocast, where bf16 is slow or wrong."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        trains = torch.is_grad_enabled() and input.is_cpu and torch.is_autocast_enabled("cpu")
        if not (trains and (_is_slow(self) or _may_miss(self, input))):
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        exact = None if bias is None else bias.float()
        with torch.autocast("cpu", enabled=False):
            result: Tensor = super()._conv_forward(input.float(), weight.float(), exact)
        return result.to(torch.get_autocast_dtype("cpu"))


def _is_slow(module: nn.Conv2d) -> bool:
    is_depthwise = module.groups == module.in_channels > 1
    return is_depthwise and (module.kernel_size != (3, 3) or module.stride != (1, 1)) and module.kernel_size != (1, 1)


def _may_miss(module: nn.Conv2d, images: Tensor) -> bool:
    """Say whether a tap of the kernel may meet no pixel: only over maps about as small as the kernel."""
    parts = zip(images.shape[-2:], module.kernel_size, module.dilation, module.stride, strict=True)
    return any(side < (kernel - 1) * gap + step for side, kernel, gap, step in parts)
