"""Depthwise convolutions whose gradients are slow in bfloat16 compute in float32 while a network trains."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from automl_pt.backbones.build import build_model
from automl_pt.plugins.manager import load_plugins
from automl_pt.training.cpu.depthwise import DepthwiseConv2d, ExactForward, use_float32_where_depthwise
from automl_pt.training.cpu.small_maps import use_convolutions
from automl_pt.training.layout import arrange


@pytest.mark.parametrize(
    ("layer", "side", "is_exact"),
    [
        (nn.Conv2d(8, 8, 5, padding=2, groups=8), 9, True),
        (nn.Conv2d(8, 16, 7, padding=3, groups=8), 9, True),
        (nn.Conv2d(8, 8, 3, padding=1, stride=2, groups=8), 9, True),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), 9, False),
        (nn.Conv2d(8, 8, 1, groups=8), 9, False),
        (nn.Conv2d(8, 8, 5, padding=2, groups=4), 9, False),
        # a tap of the kernel may meet no pixel
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), 2, True),
        (nn.Conv2d(8, 8, 5, padding=2, groups=4), 3, True),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2), 4, True),
    ],
)
def test_the_slow_and_the_wrong_ones_train_in_float32(layer: nn.Conv2d, side: int, is_exact: bool) -> None:
    use_float32_where_depthwise(layer)
    images = torch.randn(2, 8, side, side)
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(images)
    assert torch.equal(result, layer(images).bfloat16()) == is_exact
    assert type(use_convolutions(layer)) is nn.Conv2d


@pytest.mark.parametrize("batch", [1, 2, 5, 8, 16, 20, 64])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 2, 1), (3, 1, 1), (5, 2, 2), (3, 2, 2), (7, 1, 2)])
def test_taps_that_meet_no_pixel_have_a_gradient_of_zero(
    batch: int, groups: int, kernel: int, stride: int, side: int
) -> None:
    layer = nn.Conv2d(96, 96, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    model = arrange(nn.Sequential(layer), torch.device("cpu"), "bf16")
    images = torch.randn(batch, 96, side, side).contiguous(memory_format=torch.channels_last)
    used = [torch.full_like(layer.weight, torch.nan, dtype=torch.bfloat16) for _ in range(8)]
    del used  # what the next tensors may find in memory
    with torch.autocast("cpu", torch.bfloat16):
        result = model(images)
    result.float().square().sum().backward()
    weight = torch.ones_like(layer.weight).requires_grad_()
    exact = nn.functional.conv2d(torch.ones_like(images), weight, None, stride, kernel // 2, 1, groups)
    met = torch.autograd.grad(exact.sum(), weight)[0] > 0
    assert layer.weight.grad is not None
    assert torch.isfinite(layer.weight.grad).all()
    assert not layer.weight.grad[~met].any()


@pytest.mark.parametrize("bias", [False, True])
def test_training_computes_in_float32_and_gives_what_autocast_would_give(bias: bool) -> None:
    plain = nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=bias)
    ours = use_float32_where_depthwise(nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=bias))
    ours.load_state_dict(plain.state_dict())
    images = torch.randn(2, 8, 6, 6)
    rounded = images.bfloat16().requires_grad_()
    exact = plain(rounded.float())
    with torch.autocast("cpu", torch.bfloat16):
        result = ours(rounded)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, exact.bfloat16(), rtol=0, atol=0)
    found = torch.autograd.grad(result.float().sum(), [rounded, *ours.parameters()])
    wanted = torch.autograd.grad(exact.sum(), [rounded, *plain.parameters()])
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-2)


def test_without_gradients_or_autocast_nothing_changes() -> None:
    plain = nn.Conv2d(8, 8, 5, groups=8)
    ours = use_float32_where_depthwise(nn.Conv2d(8, 8, 5, groups=8))
    ours.load_state_dict(plain.state_dict())
    images = torch.randn(2, 8, 6, 6)
    assert torch.equal(ours(images), plain(images))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(images), plain(images))


@pytest.mark.parametrize(("precision", "is_exchanged"), [("fp32", False), ("bf16", True)])
def test_a_network_is_arranged_so_only_where_it_computes_in_bfloat16(precision: str, is_exchanged: bool) -> None:
    model = arrange(nn.Sequential(nn.Conv2d(8, 8, 5, groups=8)), torch.device("cpu"), precision)  # type: ignore[arg-type]
    assert (type(model[0]) is DepthwiseConv2d) == is_exchanged


class Own(nn.Conv2d):
    """A convolution that pads in its own `forward`, as some of timm's do."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(input, (0, 1, 0, 1))
        return nn.functional.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)


def test_a_derived_convolution_trains_in_float32_where_that_is_faster_and_keeps_its_forward() -> None:
    layers = [Own(8, 8, 3, stride=2, groups=8), Own(8, 8, 3, groups=8), Own(8, 8, 3, stride=2)]
    images = torch.randn(2, 8, 9, 9)
    for layer, is_exact in zip(layers, (True, False, False), strict=True):
        plain, own = copy.deepcopy(layer), arrange(nn.Sequential(layer), torch.device("cpu"), "bf16")[0]
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            result, expected = own(images), plain(images)
            again = copy.deepcopy(own)(images)
        assert result.dtype == torch.bfloat16
        assert torch.equal(result, plain(images).bfloat16()) == is_exact
        assert is_exact or torch.equal(result, expected)
        assert torch.equal(again, result)
        assert isinstance(own, Own)
        assert type(use_convolutions(own)) is Own


def test_timms_network_with_the_padding_of_tensorflow_is_exchanged_and_put_back() -> None:
    model = build_model(load_plugins().backbone("timm/tf_efficientnet_lite0"), 3, 32, seed=1)
    before = [type(module) for module in model.modules()]
    arrange(model, torch.device("cpu"), "bf16")
    arrange(model, torch.device("cpu"), "bf16")
    changed = [module for module, kind in zip(model.modules(), before, strict=True) if type(module) is not kind]
    assert sum(isinstance(module, ExactForward) for module in changed) == 5  # the stem, and a stride in four stages
    assert [type(module) for module in use_convolutions(model).modules()] == before


def test_a_parametrised_convolution_stays_as_it_is() -> None:
    layer = nn.utils.parametrizations.weight_norm(Own(8, 8, 3, stride=2, groups=8))
    kind = type(layer)
    assert type(use_float32_where_depthwise(layer)) is kind
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is Own
