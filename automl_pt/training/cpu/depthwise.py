"""Computes depthwise and other grouped convolutions on a CPU in float32, where bfloat16 is slow or wrong.

Each channel has its own kernel there, so there is little to multiply, and bfloat16 saves nothing: PyTorch's gradients
of such a convolution take 2 to 15 times as long in bfloat16 as in float32, except for 3x3 kernels without a stride.
This doubled the training time of EfficientNet-B0 at 64 px (benchmarks/number_formats.py).

Also, if a tap of the kernel meets no pixel, as over a map of one pixel, PyTorch 2.15 may leave that tap's gradient
uninitialised, possibly not finite. So over maps about as small as the kernel all convolutions that `small_maps` does
not compute as products use float32.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def use_float32_where_depthwise(model: nn.Module) -> nn.Module:
    """Make the model's depthwise convolutions compute in float32 while it trains, others over small maps only.

    Names, weights and hooks stay. `nn.Conv2d` is replaced in place, and so are derived classes, such as timm's
    convolutions that pad as TensorFlow does; these keep their own `forward`. `use_convolutions` reverts it.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = DepthwiseConv2d
        elif _is_derived(module):
            module.__class__ = _exact(type(module))  # type: ignore[arg-type]  # a class is hashable
    return model


def use_own_class(module: nn.Module) -> None:
    """Revert `use_float32_where_depthwise` for a convolution of a class derived from `nn.Conv2d`."""
    if isinstance(module, ExactForward):
        module.__class__ = type(module).__bases__[1]


def _is_derived(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d) or isinstance(module, ExactForward):
        return False
    # PyTorch creates a class for each parametrised module, and restores its first base on removal
    return not getattr(module, "has_own_arithmetic", False) and not parametrize.is_parametrized(module)


class ExactForward:
    """Gives a class derived from `nn.Conv2d` a `forward` in float32, under the same rule as `DepthwiseConv2d`."""

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Compute the convolution's own `forward`, in float32 where bfloat16 is slow or wrong."""
        own: Any = super()
        images = inputs[0] if len(inputs) == 1 and not options else None
        if not isinstance(images, Tensor) or not isinstance(self, nn.Conv2d) or not _needs_float32(self, images):
            return own.forward(*inputs, **options)
        with torch.autocast("cpu", enabled=False):
            result = own.forward(images.float())
        return result.to(torch.get_autocast_dtype("cpu"))


@cache
def _exact(kind: Any) -> Any:
    return type(kind)(kind.__name__, (ExactForward, kind), {"__module__": kind.__module__})


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` that computes in float32 while it trains under autocast, where bfloat16 is slow or wrong."""

    has_own_arithmetic = True

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _needs_float32(self, input):
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        exact = None if bias is None else bias.float()
        with torch.autocast("cpu", enabled=False):
            result: Tensor = super()._conv_forward(input.float(), weight.float(), exact)
        return result.to(torch.get_autocast_dtype("cpu"))


def _needs_float32(module: nn.Conv2d, images: Tensor) -> bool:
    trains = torch.is_grad_enabled() and images.is_cpu and torch.is_autocast_enabled("cpu")
    return trains and (_is_slow(module) or _may_miss(module, images))


def _is_slow(module: nn.Conv2d) -> bool:
    is_depthwise = module.groups == module.in_channels > 1
    return is_depthwise and (module.kernel_size != (3, 3) or module.stride != (1, 1)) and module.kernel_size != (1, 1)


def _may_miss(module: nn.Conv2d, images: Tensor) -> bool:
    """Return whether a tap of the kernel may meet no pixel, which needs a map about as small as the kernel."""
    parts = zip(images.shape[-2:], module.kernel_size, module.dilation, module.stride, strict=True)
    return any(side < (kernel - 1) * gap + step for side, kernel, gap, step in parts)
