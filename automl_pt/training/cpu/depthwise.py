"""Depthwise and other grouped convolutions on a CPU, kept in float32 where bfloat16 is slow or wrong.

Each channel has a kernel of its own there, so that there is little to multiply, and the short format saves nothing;
PyTorch's gradients of such a convolution in bfloat16 take 2 to 15 times as long as in float32, but for 3x3 kernels
without a stride. It made EfficientNet-B0 at 64 px twice as slow to train (benchmarks/number_formats.py).

And where a tap of the kernel meets no pixel, as over a map of one pixel, PyTorch 2.15 may leave that tap's gradient
unwritten: whatever lay in memory, not-finite numbers, too. So over maps about as small as the kernel all convolutions
that `small_maps` does not compute as products stay in float32.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def use_float32_where_depthwise(model: nn.Module) -> nn.Module:
    """Make the model's depthwise convolutions compute in float32 while it trains, others over small maps alone.

    Names, weights and hooks stay. `nn.Conv2d` is exchanged in place, and so are classes derived from it, such as timm's
    convolutions that pad as TensorFlow does: these keep their own `forward`. It is undone by `use_convolutions`.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = DepthwiseConv2d
        elif _is_derived(module):
            module.__class__ = _exact(type(module))  # type: ignore[arg-type]  # a class is hashable
    return model


def use_own_class(module: nn.Module) -> None:
    """Undo `use_float32_where_depthwise` for a convolution of a class derived from `nn.Conv2d`."""
    if isinstance(module, ExactForward):
        module.__class__ = type(module).__bases__[1]


def _is_derived(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d) or isinstance(module, ExactForward):
        return False
    # PyTorch makes a class for each parametrised module, and takes its first base when it undoes that
    return not getattr(module, "has_own_arithmetic", False) and not parametrize.is_parametrized(module)


class ExactForward:
    """Gives a class derived from `nn.Conv2d` a `forward` in float32, under the rule of `DepthwiseConv2d`."""

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Compute what the convolution's own `forward` does: in float32 where the short format is slow or wrong."""
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
    """`nn.Conv2d` in all but its number format: float32 while it trains under autocast, where bf16 is slow or wrong."""

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
    """Say whether a tap of the kernel may meet no pixel: only over maps about as small as the kernel."""
    parts = zip(images.shape[-2:], module.kernel_size, module.dilation, module.stride, strict=True)
    return any(side < (kernel - 1) * gap + step for side, kernel, gap, step in parts)
