"""Networks for RGB images that are made ones for any number of channels."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models import adapt_input_conv

from automl_pt.backbones.build import build_model
from automl_pt.backbones.first_convolution import adapt_kernel, adapt_tensors
from automl_pt.plugins.manager import load_plugins

PLUGINS = load_plugins()


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_kernels_are_adapted_as_timm_does_it(channels: int) -> None:
    kernel = torch.randn(4, 3, 5, 5)
    assert torch.equal(adapt_kernel(kernel, channels), adapt_input_conv(channels, kernel.clone()))


def test_grey_images_give_what_their_rgb_repetition_gave() -> None:
    backbone = PLUGINS.backbone("resnet18")
    colour, grey = (build_model(backbone, 3, 32, seed=1, channels=channels).eval() for channels in (3, 1))
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "timm/resnet10t", "lite0"])
@pytest.mark.parametrize("side", [32, 64])
def test_a_network_takes_other_channels(name: str, side: int) -> None:
    backbone = PLUGINS.backbone(name)
    model = build_model(backbone, 3, side, seed=1, channels=4)
    assert model(torch.randn(2, 4, side, side)).shape == (2, 3)


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet10t"])
def test_the_recipe_builds_the_same_network(name: str) -> None:
    backbone = PLUGINS.backbone(name)
    assert backbone.recipe is not None
    found: dict[str, torch.nn.Module] = {}
    exec(backbone.recipe(3, 64, in_channels=2), found)
    found["model"].load_state_dict(build_model(backbone, 3, 64, seed=1, channels=2).state_dict())


def test_weights_for_rgb_start_a_network_of_other_channels() -> None:
    given = timm.create_model("resnet10t", num_classes=3).state_dict()
    grey = timm.create_model("resnet10t", num_classes=3, in_chans=1)
    found = adapt_tensors(grey, given)
    grey.load_state_dict(dict(found))
    assert torch.equal(found["conv1.0.weight"], given["conv1.0.weight"].sum(1, keepdim=True))
    assert adapt_tensors(grey, found) is found


def test_pretrained_weights_are_adapted() -> None:
    backbone = PLUGINS.backbone("lite0")
    colour, grey = (build_model(backbone, 3, 64, seed=1, channels=channels, pretrained=True) for channels in (3, 1))
    first, other = (next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d)) for model in (colour, grey))
    assert torch.equal(other.weight, first.weight.sum(1, keepdim=True))
