"""Convolutions whose result is a few pixels, computed as matrix products.

Over maps of 2x2 pixels, where networks for small images spend a third of their time, PyTorch's own convolutions reach a
fifth of a CPU's speed in float32: their gradient of the weights most of all. The same sums as one product of matrices
take 0.3 to 0.9 of their time there, and more from maps of 7x7 on (benchmarks/small_maps.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: pixels of the largest result computed so, and weights for each of its pixels that make it pay: both measured
MAX_PIXELS = 16
WEIGHTS_PER_PIXEL = 2**15


def use_matrix_products(model: nn.Module) -> nn.Module:
    """Make those of the model's convolutions that can be, and only while their result is small, matrix products.

    Only `nn.Conv2d` itself is exchanged, in place, without groups or dilation; names, weights and hooks stay.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and _can_be(module):
            module.__class__ = SmallMapConv2d
    return model


def use_convolutions(model: nn.Module) -> nn.Module:
    """Undo `use_matrix_products`, for whoever reads the network's structure."""
    for module in model.modules():
        if type(module) is SmallMapConv2d:
            module.__class__ = nn.Conv2d  # type: ignore[assignment]  # narrowed by the line above
    return model


class SmallMapConv2d(nn.Conv2d):
    """`nn.Conv2d` in all but its arithmetic: float32 on a CPU with a small result is a product of matrices."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._is_small(input, weight):
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        result: Tensor = _Product.apply(input, weight, self.stride, self.padding)
        return result if bias is None else result + bias[:, None, None]

    def _is_small(self, images: Tensor, weight: Tensor) -> bool:
        if images.dim() != 4 or not images.is_cpu or images.dtype != torch.float32 or weight.dtype != torch.float32:
            return False
        if torch.is_autocast_enabled("cpu"):
            return False
        height, width = _shape(images, weight, self.stride, self.padding)
        pixels = height * width
        return 0 < pixels <= MAX_PIXELS and weight.numel() >= WEIGHTS_PER_PIXEL * pixels


def _can_be(module: nn.Conv2d) -> bool:
    plain = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
    return plain and not isinstance(module.padding, str)


def _shape(images: Tensor, weight: Tensor, stride: Any, padding: Any) -> tuple[int, int]:
    sides = zip(images.shape[2:], weight.shape[2:], stride, padding, strict=True)
    height, width = ((size + 2 * pad - kernel) // step + 1 for size, kernel, step, pad in sides)
    return height, width


class _Product(torch.autograd.Function):
    """A convolution of float32[N, C, H, W] as (pixels, taps * C) @ (taps * C, channels), in channels_last memory."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: Any, padding: Any) -> Tensor:
        height, width = _shape(images, weight, stride, padding)
        rows, columns = (
            _taps(images.shape[axis], weight.shape[axis], stride[axis - 2], padding[axis - 2]) for axis in (2, 3)
        )
        ctx.save_for_backward(images, weight)
        ctx.plan = height, width, rows, columns
        result = _unfold(images, *ctx.plan) @ _matrix(weight, rows, columns).t()
        return result.view(len(images), height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        height, width, rows, columns = ctx.plan
        flat = gradient.permute(0, 2, 3, 1).reshape(-1, weight.shape[0])
        of_images = of_weight = None
        if ctx.needs_input_grad[1]:
            products = (flat.t() @ _unfold(images, *ctx.plan)).view(-1, len(rows), len(columns), weight.shape[1])
            of_weight = products.permute(0, 3, 1, 2)  # channels_last as the weights are: no copy is made of it
            if of_weight.shape != weight.shape:
                of_taps, of_weight = of_weight, torch.zeros_like(weight)
                of_weight[:, :, _span(rows), _span(columns)] = of_taps
        if ctx.needs_input_grad[0]:
            of_images = _fold(flat @ _matrix(weight, rows, columns), images, *ctx.plan)
        return of_images, of_weight, None, None


#: a tap of the kernel along one side: its place in the kernel, the results that it adds to, the pixels that it reads
Tap = tuple[int, slice, slice]
_NONE = slice(0, 0)


@lru_cache(maxsize=1024)
def _taps(size: int, kernel: int, step: int, pad: int) -> tuple[Tap, ...]:
    """List the taps from the first to the last that meet a pixel: over one pixel, one of a kernel's three rows."""
    taps = [_tap(place, size, step, pad, (size + 2 * pad - kernel) // step + 1) for place in range(kernel)]
    meeting = [place for place, results, _ in taps if results != _NONE]
    return tuple(taps[meeting[0] : meeting[-1] + 1]) if meeting else (taps[0],)


def _tap(place: int, size: int, step: int, pad: int, results: int) -> Tap:
    first = max(0, -((place - pad) // step))
    last = min(results - 1, (size - 1 + pad - place) // step)
    if first > last:
        return place, _NONE, _NONE
    start = first * step + place - pad
    return place, slice(first, last + 1), slice(start, start + (last - first) * step + 1, step)


def _span(taps: tuple[Tap, ...]) -> slice:
    return slice(taps[0][0], taps[-1][0] + 1)


def _matrix(weight: Tensor, rows: tuple[Tap, ...], columns: tuple[Tap, ...]) -> Tensor:
    """Return the weights as [channels, taps * C]: a view, where the memory is channels_last and all taps count."""
    return weight[:, :, _span(rows), _span(columns)].permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def _pairs(
    unfolded: Tensor, images: Tensor, rows: tuple[Tap, ...], columns: tuple[Tap, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for each tap its part of `unfolded`, [N, H', W', rows, columns, C], and of `images`, [N, H, W, C]."""
    for i, (_, results_y, pixels_y) in enumerate(rows):
        for j, (_, results_x, pixels_x) in enumerate(columns):
            yield unfolded[:, results_y, results_x, i, j], images[:, pixels_y, pixels_x]


def _unfold(images: Tensor, height: int, width: int, rows: tuple[Tap, ...], columns: tuple[Tap, ...]) -> Tensor:
    count, channels = images.shape[:2]
    unfolded = images.new_zeros(count, height, width, len(rows), len(columns), channels)
    for part, pixels in _pairs(unfolded, images.permute(0, 2, 3, 1), rows, columns):
        part.copy_(pixels)
    return unfolded.view(count * height * width, -1)


def _fold(
    products: Tensor, images: Tensor, height: int, width: int, rows: tuple[Tap, ...], columns: tuple[Tap, ...]
) -> Tensor:
    count, channels = images.shape[:2]
    unfolded = products.view(count, height, width, len(rows), len(columns), channels)
    folded = products.new_zeros(count, *images.shape[2:], channels)
    for part, pixels in _pairs(unfolded, folded, rows, columns):
        pixels += part
    return folded.permute(0, 3, 1, 2)
