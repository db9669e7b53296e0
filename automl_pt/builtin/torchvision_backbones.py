"""ResNets and DenseNets of torchvision, under their own names, in a static table: listing imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from automl_pt.backbone import Backbone
from automl_pt.builtin.figures import figures
from automl_pt.builtin.pretrained import published
from automl_pt.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

RESNETS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
DENSENETS = ("densenet121", "densenet161", "densenet169", "densenet201")
LICENSE = "BSD-3-Clause"

# torchvision's DenseNet files predate the rule that a module's name has no dot
_OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


@hookimpl
def register_backbones() -> list[Backbone]:
    """Register torchvision's ResNets and DenseNets."""
    return [*map(_resnet, RESNETS), *map(_densenet, DENSENETS)]


def _resnet(name: str) -> Backbone:
    return Backbone(
        name,
        partial(build, name, "fc"),
        min_image_size=1,
        has_pretrained=True,
        weights_license=LICENSE,
        published=published(name),
        adapt=adapt_resnet,
        head="fc",
        recipe=partial(recipe, name, "model.conv1", "model.maxpool"),
        param_groups=param_groups,
        **_figures(name),
    )


def _densenet(name: str) -> Backbone:
    return Backbone(
        name,
        partial(build, name, "classifier"),
        min_image_size=8,
        has_pretrained=True,
        weights_license=LICENSE,
        published=published(name),
        adapt=adapt_densenet,
        head="classifier",
        recipe=partial(recipe, name, "model.features.conv0", "model.features.pool0"),
        convert_weights=modern_densenet_names,
        param_groups=param_groups,
        **_figures(name),
    )


def _figures(name: str) -> dict[str, Any]:
    known = figures(name, 224)
    if known is None:
        return {}
    return {"parameters": known.parameters, "gflops": known.gflops, "batch_norm": known.batch_norm}


def param_groups(model: nn.Module) -> list[list[str]]:
    """Return the stem, each stage of blocks, and the head; a DenseNet's transition belongs to the block before it."""
    groups: list[list[str]] = [[]]
    features = getattr(model, "features", model)
    prefix = "" if features is model else "features."
    for name, _ in features.named_children():
        if name.startswith(("layer", "denseblock")):
            groups.append([])
        groups[-1].append(prefix + name)
    return groups


def build(name: str, head: str, num_classes: int, pretrained: bool) -> nn.Module:
    """Build torchvision's network `name`; with `pretrained`, from torchvision's default weights with a new head."""
    from torch import nn
    from torchvision.models import get_model

    if not pretrained:
        model: nn.Module = get_model(name, weights=None, num_classes=num_classes)
        return model
    from automl_pt.builtin.pretrained import torchvision_weights

    model = get_model(name, weights=None)
    model.load_state_dict(modern_densenet_names(model, torchvision_weights(name)))
    old = model.get_submodule(head)
    assert isinstance(old, nn.Linear)
    setattr(model, head, nn.Linear(old.in_features, num_classes))
    return model


def modern_densenet_names(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors such as `denselayer1.norm.1.weight` to `denselayer1.norm1.weight`."""
    return {_OLD_DENSENET_KEY.sub(r"\1\2", name): tensor for name, tensor in tensors.items()}


def recipe(name: str, convolution: str, pool: str, num_classes: int, image_size: int, in_channels: int = 3) -> str:
    """Return the lines that build the same network as `model` with torchvision only."""
    lines = ["import torch, torchvision", f"model = torchvision.models.{name}(num_classes={num_classes})"]
    channels = 96 if name == "densenet161" else 64
    if image_size < SMALL:
        lines.append(f"{convolution} = torch.nn.Conv2d({in_channels}, {channels}, 3, padding=1, bias=False)")
        lines.append(f"{pool} = torch.nn.Identity()")
    elif in_channels != 3:
        given = f"{in_channels}, {channels}, 7, stride=2, padding=3, bias=False"
        lines.append(f"{convolution} = torch.nn.Conv2d({given})")
    return "\n".join(lines)


#: Images of at least this side keep the original stem. It reduces 64 px to 2 x 2 cells, so below that the first
#: convolution becomes 3 x 3 with stride 1, and the max-pool after it is removed. The new kernel is the centre of the
#: old one, scaled by 7/3: for a new network that is He initialisation for the smaller kernel, and pretrained filters
#: keep their centre, because the batch normalisation that follows cancels the scale.
SMALL = 64


def adapt_resnet(model: nn.Module, image_size: int) -> nn.Module:
    """Replace the stem of a torchvision ResNet if the images are small."""
    from torch import nn

    if image_size < SMALL:
        resnet = cast(Any, model)
        resnet.conv1, resnet.maxpool = _small_stem(resnet.conv1), nn.Identity()
    return model


def adapt_densenet(model: nn.Module, image_size: int) -> nn.Module:
    """Replace the stem of a torchvision DenseNet if the images are small."""
    from torch import nn

    if image_size < SMALL:
        features = cast(Any, model).features
        features.conv0, features.pool0 = _small_stem(features.conv0), nn.Identity()
    return model


def _small_stem(convolution: nn.Conv2d) -> nn.Conv2d:
    import torch
    from torch import nn

    size = convolution.kernel_size[0]
    middle = slice((size - 3) // 2, (size - 3) // 2 + 3)
    with torch.no_grad():
        kernel = convolution.weight[:, :, middle, middle] * (size / 3)
    # on the meta device, so that no random numbers are drawn and the rest of the network is unchanged
    inputs = convolution.in_channels
    small = nn.Conv2d(inputs, convolution.out_channels, kernel_size=3, padding=1, bias=False, device="meta")
    small.weight = nn.Parameter(kernel)
    return small
