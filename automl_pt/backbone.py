"""What a backbone is: a name, how to build it, and the images it wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A named network builder.

    `build(num_classes, pretrained)` returns a new `nn.Module` from float[B, 3, S, S] to logits float[B, num_classes].
    With `pretrained` it loads weights or raises; it never falls back to random ones.
    """

    name: str
    build: Callable[[int, bool], nn.Module]
    #: side S of the images in pixels, where the user names none
    image_size: int = 224
    #: smallest side the network accepts, if it takes other sizes than `image_size`; None: nothing is promised of others
    min_image_size: int | None = None
    #: per channel, of pixels scaled to [0, 1]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    #: True when `build(n, True)` can give pretrained weights
    has_pretrained: bool = False
    #: licence of those weights, shown in listings and kept with the model
    weights_license: str | None = None
    #: called after `build` with the model and the image size: a place for a stem that suits small images
    adapt: Callable[[nn.Module, int], nn.Module] | None = None
    #: name, or names, of the head's modules; found as the last linear layer when None
    head: str | tuple[str, ...] | None = None
    #: of (num_classes, image_size): the lines with which plain torchvision or timm builds the same network as `model`,
    #: for the model directory's README; None: only this package builds it
    recipe: Callable[[int, int], str] | None = None
    #: of (model, tensors): renames the tensors of a published weights file to this model's names
    convert_weights: Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    #: True where the channels_last layout was measured to be faster on a CPU in float32 too
    channels_last: bool = False


@dataclass(frozen=True)
class Catalogue:
    """Many backbones under one prefix, each made when it is asked for: for a zoo whose import is slow.

    `names()` lists them in full, `prefix` included; `make(name)` gives one of them. Neither is called before somebody
    lists all backbones or asks for a name that starts with `prefix`.
    """

    #: ends in "/"
    prefix: str
    names: Callable[[], Sequence[str]]
    make: Callable[[str], Backbone]
