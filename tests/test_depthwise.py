"""Depthwise convolutions whose gradients are slow in bfloat16 compute in float32 while a network trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from automl_pt.training.depthwise import DepthwiseConv2d, use_float32_where_depthwise
from automl_pt.training.layout import arrange
from automl_pt.training.small_maps import use_convolutions


@pytest.mark.parametrize(
    ("layer", "is_exchanged"),
    [
        (nn.Conv2d(8, 8, 5, groups=8), True),
        (nn.Conv2d(8, 16, 7, groups=8), True),
        (nn.Conv2d(8, 8, 3, stride=2, groups=8), True),
        (nn.Conv2d(8, 8, 3, groups=8), False),
        (nn.Conv2d(8, 8, 1, groups=8), False),
        (nn.Conv2d(8, 8, 5, groups=4), False),
        (nn.Conv2d(8, 8, 5), False),
        (nn.Conv2d(1, 8, 5), False),
    ],
)
def test_the_slow_ones_are_exchanged_and_the_exchange_can_be_undone(layer: nn.Conv2d, is_exchanged: bool) -> None:
    use_float32_where_depthwise(layer)
    assert (type(layer) is DepthwiseConv2d) == is_exchanged
    assert type(use_convolutions(layer)) is nn.Conv2d


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
