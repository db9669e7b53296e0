"""Convolutions over small maps as matrix products give what PyTorch's own give; all others stay as they are."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from automl_pt.training.cpu import small_maps
from automl_pt.training.cpu.small_maps import SmallMapConv2d, use_convolutions, use_matrix_products
from automl_pt.training.device import has_amx
from automl_pt.training.layout import arrange, has_channels_last

CPU = torch.device("cpu")
sides = st.integers(1, 6)


def results(layer: nn.Module, images: Tensor) -> list[Tensor]:
    images = images.detach().requires_grad_()
    output = layer(images)
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    return [output, *torch.autograd.grad(output, [images, *layer.parameters()], weights)]


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(sides, sides),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    bias=st.booleans(),
    last=st.booleans(),
)
def test_output_and_gradients_are_those_of_a_convolution(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    bias: bool,
    last: bool,
) -> None:
    height, width = (
        (pixels + 2 * pad - taps) // step + 1
        for pixels, taps, step, pad in zip(size, kernel, stride, padding, strict=True)
    )
    if min(height, width) < 1:
        return
    layer = nn.Conv2d(4, 3, kernel, stride=stride, padding=padding, bias=bias)
    images = torch.randn(2, 4, *size)
    if last:
        layer, images = layer.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    expected = results(layer, images)
    ours = results(Always(layer), images)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


class Always(nn.Module):
    """The layer's matrix product, whatever the size."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        result = small_maps._Product.apply(images, self.layer.weight, self.layer.stride, self.layer.padding)
        return result if self.layer.bias is None else result + self.layer.bias[:, None, None]


@pytest.mark.parametrize(
    ("channels", "kernel", "size", "small"),
    [
        (512, 3, 2, True),
        (512, 3, 4, True),
        (512, 3, 7, True),
        (1024, 3, 8, False),  # 64 pixels
        (256, 3, 4, True),
        (128, 3, 4, False),  # too few weights for 16 pixels
        (128, 3, 2, True),
        (64, 3, 2, False),
        (64, 3, 1, True),
        (512, 1, 1, True),
    ],
)
def test_few_pixels_and_many_weights_make_a_product(channels: int, kernel: int, size: int, small: bool) -> None:
    layer = use_matrix_products(nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False))
    images = torch.randn(2, channels, size, size, requires_grad=True)
    name = type(layer(images).grad_fn).__name__
    assert ("_Product" in name) == small


def test_frozen_weights_and_first_layers_need_no_gradient() -> None:
    layer = use_matrix_products(nn.Conv2d(256, 256, 3, padding=1))
    layer.weight.requires_grad_(False)
    layer(torch.randn(2, 256, 2, 2)).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias is not None
    assert layer.bias.grad is not None
    images = torch.randn(2, 256, 2, 2, requires_grad=True)
    layer(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_half_precision_other_than_bfloat16_and_double_stay_convolutions() -> None:
    layer = use_matrix_products(nn.Conv2d(256, 256, 3, padding=1))
    images = torch.randn(1, 256, 2, 2)
    with torch.autocast("cpu", torch.float16):
        assert "_Product" not in type(layer(images).grad_fn).__name__
    assert layer.double()(images.double()).dtype == torch.float64


@pytest.mark.parametrize(("channels", "size", "small"), [(512, 1, True), (512, 4, True), (256, 4, False)])
def test_under_autocast_more_weights_make_a_product(channels: int, size: int, small: bool) -> None:
    layer = use_matrix_products(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
    images = torch.randn(2, channels, size, size, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(images)
    assert result.dtype == torch.bfloat16
    # over one pixel eight taps of nine meet none: a product always
    assert ("_Product" in type(result.grad_fn).__name__) == (size == 1 or (small and not has_amx()))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, 2), (3, 1, 3), (3, 2, 4), (1, 2, 3), (5, 1, 1)])
def test_products_under_autocast_are_near_to_float32(
    kernel: int, stride: int, size: int, last: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(512, 512, kernel, stride=stride, padding=kernel // 2, bias=bias)
    images = torch.randn(4, 512, size, size)
    if last:
        layer, images = layer.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    exact = results(layer, images)
    with torch.autocast("cpu", torch.bfloat16):
        ours = results(small_map := use_matrix_products(layer), images.bfloat16())
    assert type(small_map) is SmallMapConv2d
    # not compared with PyTorch's own in bfloat16: where a tap meets no pixel, those may be not finite
    for mine, right in zip(ours, exact, strict=True):
        assert mine.shape == right.shape
        assert ((mine.float() - right).norm() / right.norm()).item() < 0.01


def test_only_plain_convolutions_are_exchanged_and_the_exchange_can_be_undone() -> None:
    class Own(nn.Conv2d):
        pass

    layers = [
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 3, dilation=2),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        Own(8, 8, 3),
    ]
    model = nn.Sequential(*layers)
    names = list(model.state_dict())
    use_matrix_products(model)
    assert [type(layer) is SmallMapConv2d for layer in model] == [True, False, False, False, False, False]
    assert list(model.state_dict()) == names
    assert type(copy.deepcopy(model)[0]) is SmallMapConv2d
    use_convolutions(model)
    assert [type(layer) for layer in model] == [nn.Conv2d] * 5 + [Own]


def test_a_network_is_arranged_for_its_device_and_computes_the_same() -> None:
    from torchvision.models import resnet18

    model = resnet18(num_classes=5).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        arranged = arrange(model, CPU, "fp32")
        logits = arranged(images.contiguous(memory_format=torch.channels_last))
    assert any(type(module) is SmallMapConv2d for module in arranged.modules())
    assert arranged.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "precision", "last"),
    [
        ("cpu", "fp32", True),
        ("cpu", "bf16", True),
        ("cuda", "bf16", True),
        ("cuda", "fp32", False),
        ("mps", "fp32", False),
    ],
)
def test_where_channels_lie_innermost(device: str, precision: str, last: bool) -> None:
    assert has_channels_last(torch.device(device), precision) is last  # type: ignore[arg-type]  # from the table
