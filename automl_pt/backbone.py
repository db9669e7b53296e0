"""What a backbone is: a name, how to build it, and the images it wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A named network builder.

    `build(num_classes, pretrained)` returns a new `nn.Module` that maps float[B, 3, S, S] to logits float[B, num_classes].
    With `pretrained` it loads weights or raises; it never falls back to random ones.
    """

    name: str
    build: Callable[[int, bool], nn.Module]
    #: side S of the images in pixels, where the user names none
    image_size: int = 224
    #: smallest side the network accepts
    min_image_size: int = 1
    #: per channel, of pixels scaled to [0, 1]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    #: True when `build(n, True)` can give pretrained weights
    has_pretrained: bool = False
    #: licence of those weights, shown in listings and kept with the model
    weights_license: str | None = None
    #: called after `build` with the model and the image size: a place for a stem that suits small images
    adapt: Callable[[nn.Module, int], nn.Module] | None = None
    #: prefix of the head's parameters in `state_dict()`; found as the last linear layer when None
    head: str | None = None
    #: the lines with which plain torchvision or timm builds the same network, for the model's README; None: this package
    recipe: str | None = None
