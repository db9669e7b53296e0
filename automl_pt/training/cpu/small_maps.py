"""Computes convolutions with few output pixels as matrix products.

Over maps of 2x2 pixels, where networks for small images spend a third of their time, PyTorch's convolutions reach a
fifth of a CPU's speed in float32, their weight gradients least. Each tap of the kernel is one matrix product over the
pixels that it meets: of the nine taps over 2x2 pixels four meet one pixel and four meet two, so 16 of 36 pixel
products remain, and nothing is unfolded (benchmarks/small_maps.py).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from automl_pt.training.cpu.depthwise import DepthwiseConv2d, use_own_class
from automl_pt.training.device import has_amx

#: largest number of output pixels, and least number of weights per output pixel, where this is faster; measured
MAX_PIXELS = 49
WEIGHTS_PER_PIXEL = {torch.float32: 2**14, torch.bfloat16: 2**17}


def use_matrix_products(model: nn.Module) -> nn.Module:
    """Compute the model's eligible convolutions as matrix products whenever their output is small.

    Only `nn.Conv2d` itself is replaced, in place, without groups or dilation; names, weights and hooks stay.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and _can_be(module):
            module.__class__ = SmallMapConv2d
    return model


def use_convolutions(model: nn.Module) -> nn.Module:
    """Revert `use_matrix_products` and `use_float32_where_depthwise`, for code that reads the network's structure."""
    for module in model.modules():
        if type(module) in (SmallMapConv2d, DepthwiseConv2d):
            module.__class__ = nn.Conv2d
        use_own_class(module)
    return model


class SmallMapConv2d(nn.Conv2d):
    """`nn.Conv2d` that computes a small output as a sum of matrix products, on a CPU, in float32 or bfloat16."""

    has_own_arithmetic = True

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        short = torch.is_autocast_enabled("cpu")
        if not self._is_small(input, weight, torch.get_autocast_dtype("cpu") if short else torch.float32):
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        images = input.to(torch.bfloat16) if short else input
        result: Tensor = _Product.apply(images, weight, self.stride, self.padding)
        return result if bias is None else result + bias.to(result.dtype)[:, None, None]

    def _is_small(self, images: Tensor, weight: Tensor, number_format: torch.dtype) -> bool:
        if images.dim() != 4 or not images.is_cpu or weight.dtype != torch.float32:
            return False
        if number_format not in WEIGHTS_PER_PIXEL or images.dtype not in (torch.float32, number_format):
            return False
        height, width = _shape(images, weight, self.stride, self.padding)
        pixels = height * width
        if number_format == torch.bfloat16 and torch.is_grad_enabled() and pixels > 0:
            sides = zip(images.shape[2:], weight.shape[2:], self.stride, self.padding, strict=True)
            if any(len(_taps(*side)) < side[1] for side in sides):
                return True  # PyTorch 2.15 may leave the gradient of a tap that meets no pixel uninitialised
        if number_format == torch.bfloat16 and has_amx():
            return False  # not measured
        return 0 < pixels <= MAX_PIXELS and weight.numel() >= WEIGHTS_PER_PIXEL[number_format] * pixels


def _can_be(module: nn.Conv2d) -> bool:
    plain = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
    return plain and not isinstance(module.padding, str)


def _shape(images: Tensor, weight: Tensor, stride: Any, padding: Any) -> tuple[int, int]:
    sides = zip(images.shape[2:], weight.shape[2:], stride, padding, strict=True)
    height, width = ((size + 2 * pad - kernel) // step + 1 for size, kernel, step, pad in sides)
    return height, width


class _Product(torch.autograd.Function):
    """A convolution of images[N, C, H, W], the sum over the kernel's taps of (pixels, C) @ (C, channels).

    In channels_last memory a tap's weights, and their gradient, are already matrices; no copy is needed. For images in
    bfloat16 they are copied, and the sum over the taps is accumulated in float32, as in PyTorch's convolutions.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: Any, padding: Any) -> Tensor:
        height, width = _shape(images, weight, stride, padding)
        rows, columns = (
            _taps(images.shape[axis], weight.shape[axis], stride[axis - 2], padding[axis - 2]) for axis in (2, 3)
        )
        matrices = weight.permute(2, 3, 0, 1)
        if images.dtype != weight.dtype:
            matrices = matrices.to(images.dtype, memory_format=torch.contiguous_format)
        ctx.save_for_backward(images, matrices)
        ctx.taps = [(*row, *column) for row in rows for column in columns]
        pixels = images.permute(0, 2, 3, 1)
        result = weight.new_zeros(len(images), height, width, weight.shape[0])
        for i, results_y, pixels_y, j, results_x, pixels_x in ctx.taps:
            _add_product(result[:, results_y, results_x], pixels[:, pixels_y, pixels_x], matrices[i, j].t())
        return result.permute(0, 3, 1, 2).to(images.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, matrices = ctx.saved_tensors
        pixels, gradient = images.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
        of_images = torch.zeros_like(pixels, dtype=torch.float32) if ctx.needs_input_grad[0] else None
        start = torch.empty_like if len(ctx.taps) == matrices.shape[:2].numel() else torch.zeros_like  # meets no pixel
        of_weight = start(matrices) if ctx.needs_input_grad[1] else None
        for i, results_y, pixels_y, j, results_x, pixels_x in ctx.taps:
            results = gradient[:, results_y, results_x].flatten(0, 2)
            if of_weight is not None:
                torch.mm(results.t(), pixels[:, pixels_y, pixels_x].flatten(0, 2), out=of_weight[i, j])
            if of_images is not None:
                _add_product(of_images[:, pixels_y, pixels_x], results, matrices[i, j])
        return (
            None if of_images is None else of_images.permute(0, 3, 1, 2).to(images.dtype),
            None if of_weight is None else _as_weight(of_weight),
            None,
            None,
        )


def _as_weight(gradient: Tensor) -> Tensor:
    """Return a gradient [rows, columns, B, A] as that of the weights, float32[B, A, rows, columns]."""
    weights = gradient.permute(2, 3, 0, 1)
    if gradient.dtype == torch.float32:
        return weights
    return weights.to(torch.float32, memory_format=torch.channels_last)


def _add_product(result: Tensor, pixels: Tensor, matrix: Tensor) -> None:
    """Add to `result`, [N, H, W, B], the product of its pixels, [..., A], and a matrix [A, B]."""
    result += (pixels.reshape(-1, matrix.shape[0]) @ matrix).view(result.shape)


#: a tap of the kernel along one side: its position in the kernel, its outputs, and its input pixels
Tap = tuple[int, slice, slice]


@lru_cache(maxsize=1024)
def _taps(size: int, kernel: int, step: int, pad: int) -> tuple[Tap, ...]:
    """List the taps that meet a pixel; over one pixel, that is one of a kernel's three rows."""
    results = (size + 2 * pad - kernel) // step + 1
    taps = (_tap(place, size, step, pad, results) for place in range(kernel))
    return tuple(tap for tap in taps if tap is not None)


def _tap(place: int, size: int, step: int, pad: int, results: int) -> Tap | None:
    first = max(0, -((place - pad) // step))
    last = min(results - 1, (size - 1 + pad - place) // step)
    if first > last:
        return None
    start = first * step + place - pad
    return place, slice(first, last + 1), slice(start, start + (last - first) * step + 1, step)
