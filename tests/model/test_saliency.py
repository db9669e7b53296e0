"""Grad-CAM against what can be worked out by hand, and on the networks that come with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import load_tiny, make_info
from torch import Tensor, nn

from automl_pt.backbones.build import build_model
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.model.load import Model
from automl_pt.model.saliency import GradCam, grad_cam
from automl_pt.plugins.manager import load_plugins

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)


class Permute(nn.Module):
    """Brings [B, C, h, w] to [B, h, w, C]."""

    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 2, 3, 1).contiguous()


class Mean(nn.Module):
    """Averages [B, h, w, C] over the map."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=(1, 2))


class Tokens(nn.Module):
    """Brings [B, C, h, w] to tokens [B, h * w, C]."""

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(2).transpose(1, 2)


def model_of(*layers: nn.Module, image_size: int = 8, classes: int = 2) -> Model:
    torch.manual_seed(0)
    names = tuple(f"class {index}" for index in range(classes))
    preprocessing = Preprocessing(image_size, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    info = make_info(names, preprocessing=preprocessing)
    network = layers[0] if len(layers) == 1 else nn.Sequential(*layers)
    return Model(info, network.eval(), torch.device("cpu"), "fp32")


def by_hand(model: Model, classes: list[int], convolution: nn.Module, head: nn.Linear) -> np.ndarray:
    """Behind a mean over the map, a class's weights of the channels are those of the last layer."""
    images = model.info.preprocessing.normalise(torch.from_numpy(PIXELS))
    with torch.no_grad():
        features = convolution(images)
        maps = torch.einsum("bchw,bc->bhw", features, head.weight[classes]).clamp(min=0)
    found: np.ndarray = (maps / maps.amax(dim=(1, 2), keepdim=True)).numpy()
    return found


def test_the_map_is_the_one_worked_out_by_hand() -> None:
    convolution, head = nn.Conv2d(3, 5, 3), nn.Linear(5, 2)
    model = model_of(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    found = grad_cam(model, PIXELS, np.array([0, 1]))
    assert isinstance(found, GradCam)
    assert (found.layer, found.maps.shape) == ("0", (2, 6, 6))
    np.testing.assert_allclose(found.maps, by_hand(model, [0, 1], convolution, head), atol=1e-5)


@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_where_memory_runs_out_maps_are_made_one_after_the_other(phase: str) -> None:
    class Hungry(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            features = super().forward(images)
            if len(images) > 1 and phase == "forward":
                torch.empty(2**62, dtype=torch.uint8)  # the allocator itself refuses
            if len(images) > 1:
                features = features + 0
                features.register_hook(lambda gradient: torch.empty(2**62, dtype=torch.uint8))
            return features

    def found(convolution: nn.Conv2d) -> GradCam | str:
        return grad_cam(model_of(convolution, nn.ReLU(), nn.Flatten(), head), PIXELS, np.array([0, 1]))

    head, plain, hungry = nn.Linear(180, 2), nn.Conv2d(3, 5, 3), Hungry(3, 5, 3)
    hungry.load_state_dict(plain.state_dict())
    expected, maps = found(plain), found(hungry)
    assert isinstance(expected, GradCam)
    assert isinstance(maps, GradCam)
    np.testing.assert_allclose(maps.maps, expected.maps, atol=1e-5)


def test_a_map_whose_channels_come_last_is_told_by_its_shape() -> None:
    convolution, head = nn.Conv2d(3, 5, 3), nn.Linear(5, 2)
    model = model_of(convolution, Permute(), Mean(), head)
    found = grad_cam(model, PIXELS, np.array([0, 1]))
    assert isinstance(found, GradCam)
    assert found.layer == "1"
    np.testing.assert_allclose(found.maps, by_hand(model, [0, 1], convolution, head), atol=1e-5)


def test_tokens_and_flat_networks_have_no_map() -> None:
    head = (nn.Flatten(), nn.Linear(5 * 36, 2))
    tokens = grad_cam(model_of(nn.Conv2d(3, 5, 3), Tokens(), *head), PIXELS, np.array([0, 1]))
    assert tokens == "the network works on tokens (1), not on a map of features"
    flat = grad_cam(model_of(nn.Flatten(), nn.Linear(192, 2)), PIXELS, np.array([0, 1]))
    assert flat == "the network has no feature map of 4 x 4 or more"


def test_nothing_is_left_behind() -> None:
    model = model_of(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    grad_cam(model, PIXELS, np.array([0, 1]))
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert all(parameter.grad is None for parameter in model.network.parameters())
    assert not any(module._forward_hooks for module in model.network.modules())


def test_a_plugin_with_frozen_weights_has_a_map(tmp_path: Path) -> None:
    network = build_model(load_tiny(tmp_path).backbone("tiny"), 3, 8, seed=1)
    model = model_of(network.requires_grad_(False), classes=3)
    assert isinstance(grad_cam(model, PIXELS, np.array([0, 2])), GradCam)


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [
        ("resnet18", 8, None),
        ("resnet18", 64, None),
        ("resnet18", 128, "layer4"),
        ("densenet121", 32, "features"),
        pytest.param("timm/convnext_atto", 128, "norm_pre", marks=pytest.mark.slow),
        pytest.param("timm/mobilenetv3_small_100", 128, "blocks", marks=pytest.mark.slow),
        pytest.param("timm/efficientnet_b0", 128, "bn2", marks=pytest.mark.slow),
        pytest.param("timm/swin_tiny_patch4_window7_224", 224, "norm", marks=pytest.mark.slow),
        pytest.param("timm/vit_tiny_patch16_224", 224, None, marks=pytest.mark.slow),
    ],
)
def test_built_in_networks(name: str, size: int, layer: str | None) -> None:
    network = build_model(load_plugins().backbone(name), 3, size, seed=1)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, size, size), dtype=np.uint8)
    found = grad_cam(model_of(network, image_size=size, classes=3), pixels, np.array([0, 2]))
    if layer is None:
        assert isinstance(found, str)
        assert "tokens" in found or "2 x 2" in found
        return
    assert isinstance(found, GradCam)
    assert found.layer.startswith(layer)
    assert found.maps.shape[0] == 2
    assert found.maps.shape[1] == found.maps.shape[2] >= 4
    assert 0 <= found.maps.min() <= found.maps.max() <= 1
