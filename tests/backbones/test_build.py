"""From a backbone to a model: seed, image size, head, weights, and what is refused before anything depends on it."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from torch import nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import build_model, head_modules, head_parameters
from automl_pt.core.errors import ConfigError, InstallationError, PluginError, WeightsError
from automl_pt.plugins.manager import load_plugins


def tiny(num_classes: int, pretrained: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
    )


TINY = Backbone("tiny", tiny, image_size=16, min_image_size=4)


@pytest.fixture(scope="module")
def resnet18() -> Backbone:
    return load_plugins().backbone("resnet18")


@pytest.mark.parametrize("seed", [1, 0, -5, 2**80])
def test_any_integer_is_a_seed(seed):
    first, same, other = (build_model(TINY, 3, 16, seed=number) for number in (seed, seed, seed + 1))
    assert torch.equal(first[0].weight, same[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert first.training


def test_the_head_is_the_last_linear_layer_unless_told():
    model = build_model(TINY, 3, 16, seed=1)
    assert head_parameters(model, TINY) == {"3.weight", "3.bias"}
    assert head_parameters(model, replace(TINY, head="0")) == {"0.weight", "0.bias"}
    assert head_modules(model, replace(TINY, head=("0", "3"))) == ("0", "3")


@pytest.mark.parametrize("backbone", [replace(TINY, head="1"), Backbone("conv", lambda n, p: nn.Conv2d(3, n, 1))])
def test_a_head_without_parameters(backbone):
    with pytest.raises(
        PluginError, match=r"(?s)head of this backbone is unknown.*has no parameters.*Backbone\(head=\.\.\.\)"
    ):
        head_parameters(backbone.build(3, False), backbone)


def test_an_image_size_below_the_smallest():
    with pytest.raises(ConfigError, match="image_size: tiny takes images of 4 px and more, got 3"):
        build_model(TINY, 3, 3, seed=1)


def test_an_image_size_the_network_cannot_take():
    flat = Backbone("flat", lambda n, p: nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, n)), image_size=8)
    with pytest.raises(
        ConfigError, match=r"(?s)flat does not take images of 9 px; it is made for 8 and failed with Runtime"
    ):
        build_model(flat, 3, 9, seed=1)


def test_logits_of_another_shape():
    wrong = Backbone("wrong", lambda n, p: nn.Flatten())
    with pytest.raises(PluginError, match=r"(?s)does not return logits.*wrong: \[1, 12\] for 1 image and 3 classes"):
        build_model(wrong, 3, 2, seed=1)


def test_something_else_than_logits():
    class Pair(nn.Module):
        def forward(self, images):
            return images, images

    with pytest.raises(PluginError, match=r"(?s)does not return logits.*pair: tuple for 1 image"):
        build_model(Backbone("pair", lambda n, p: Pair()), 3, 2, seed=1)


def test_a_model_that_takes_no_channels_last_images_is_told_what_to_write() -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(self.conv(images).view(len(images), -1))
            return logits

    with pytest.raises(PluginError, match=r"(?s)channels_last memory.*viewed: RuntimeError: view size.*reshape\(\)"):
        build_model(Backbone("viewed", lambda n, p: Viewed()), 3, 8, seed=1)


def test_a_builder_that_fails():
    with pytest.raises(PluginError, match=r"(?s)did not return a model.*broken: ZeroDivisionError: division by zero"):
        build_model(Backbone("broken", lambda n, p: 1 / 0), 3, 8, seed=1)


def test_a_builder_that_returns_no_module():
    with pytest.raises(PluginError, match=r"(?s)did not return a torch\.nn\.Module.*nothing: NoneType"):
        build_model(Backbone("nothing", lambda n, p: None), 3, 8, seed=1)


def test_a_builder_that_meets_a_broken_installation():
    def build(num_classes, pretrained):
        raise RuntimeError("operator torchvision::nms does not exist")

    with pytest.raises(InstallationError, match="torch and torchvision are builds that do not match"):
        build_model(Backbone("any", build), 3, 8, seed=1)


def test_pretrained_where_there_is_none():
    with pytest.raises(WeightsError, match=r"(?s)no pretrained weights.*tiny.*--weights"):
        build_model(TINY, 3, 16, pretrained=True, seed=1)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_file(suffix, tmp_path):
    source, path = build_model(TINY, 5, 16, seed=2), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(source.state_dict(), path)
    else:
        safetensors.torch.save_file(source.state_dict(), path)
    model = build_model(TINY, 3, 16, weights=path, seed=1)
    assert torch.equal(model[0].weight, source[0].weight)
    assert not model[3].weight.any()
    assert build_model(TINY, 3, 16, seed=1)[3].weight.any()


def test_weights_of_another_network_are_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"0.weight": torch.zeros(4, 3, 5, 5), "other": torch.zeros(1)}, path)
    said = r"(?s)only the head may differ.*for tiny: 0\.bias is missing; 0\.weight is \[4, 3, 5, 5\].*; other is not in"
    with pytest.raises(WeightsError, match=said):
        build_model(TINY, 3, 16, weights=path, seed=1)


def test_many_misfits_are_counted(tmp_path, resnet18):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    with pytest.raises(WeightsError, match=r"(?s)bn1\.bias is missing; .* and 94 more.*of the same network"):
        build_model(resnet18, 3, 64, weights=path, seed=1)


@pytest.mark.parametrize("trained_at", [32, 224])
def test_weights_are_taken_before_or_after_adapting(trained_at, tmp_path, resnet18):
    """A published file has the stem for 224 px, a model trained on small images the small one: both fit."""
    source, path = (
        build_model(replace(resnet18, adapt=None) if trained_at == 224 else resnet18, 5, 32, seed=2),
        tmp_path,
    )
    safetensors.torch.save_file(source.state_dict(), path / "weights")
    model = build_model(resnet18, 3, 32, weights=path / "weights", seed=1)
    assert model.conv1.kernel_size == (3, 3)
    assert torch.equal(model.layer1[0].conv1.weight, source.layer1[0].conv1.weight)
    stem = source.conv1.weight if trained_at == 32 else source.conv1.weight[:, :, 2:5, 2:5] * (7 / 3)
    assert torch.equal(model.conv1.weight, stem)


def test_a_builder_may_ask_for_the_image_size():
    def build(num_classes, pretrained, *, image_size):
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))

    for size in (8, 20):
        assert build_model(Backbone("sized", build), 2, size, seed=1)(torch.zeros(1, 3, size, size)).shape == (1, 2)


class InAnObject(nn.Module):
    """Returns its logits as transformers' models do."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(192, 2)

    def forward(self, images):
        return SimpleNamespace(loss=None, logits=self.head(images.flatten(1)))


def test_logits_within_an_object_are_taken():
    model = build_model(Backbone("object", lambda classes, pretrained: InAnObject()), 2, 8, seed=1)
    for network in (model, copy.deepcopy(model)):
        assert network(torch.zeros(3, 3, 8, 8)).shape == (3, 2)
        assert list(network.state_dict()) == ["head.weight", "head.bias"]
