"""Stems for small images, because a network made for 224 px reduces 64 px to 2 x 2 cells.

Below `SMALL` pixels the first convolution becomes 3 x 3 with stride 1, and the max-pool after it is removed. The new
kernel is the centre of the old one, scaled by 7/3: for a new network that is He initialisation for the smaller kernel,
and pretrained filters keep their centre (the batch normalisation that follows cancels the scale).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import nn

#: images of at least this side keep the original stem
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
    small = nn.Conv2d(3, convolution.out_channels, kernel_size=3, padding=1, bias=False, device="meta")
    small.weight = nn.Parameter(kernel)
    return small
