"""Builds a model from a backbone: seeded, adapted to classes and image size, and tested on an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.first_convolution import adapt_network
from automl_pt.backbones.given_weights import load_given
from automl_pt.backbones.network_contract import (
    fails,
    require_logits,
    require_new,
    require_state_of_tensors,
    take_logits,
    without_wrappers,
)
from automl_pt.backbones.options import CHANNELS, SIZE, takes, takes_image_size
from automl_pt.backbones.random_state import seed_all
from automl_pt.backbones.weight_readings import GivenWeights
from automl_pt.backbones.weights import in_modules
from automl_pt.core.errors import AutomlError, ConfigError, PluginError, WeightsError
from automl_pt.core.out_of_memory import is_out_of_memory
from automl_pt.core.seeds import derive_seed
from automl_pt.plugins.faults import described, plugins_fault


def build_model(
    backbone: Backbone,
    num_classes: int,
    image_size: int,
    *,
    pretrained: bool = False,
    weights: Path | GivenWeights | None = None,
    seed: int,
    channels: int = 3,
    prove: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> nn.Module:
    """Return `backbone` with a head for `num_classes`, in train mode, initialised from `seed` (any integer).

    The images have `channels`; see `first_convolution` for others than RGB.

    A new head on pretrained weights starts at zero (see `zero_head`). `tell` receives notes on how the file of
    `weights` was read. The global random states are not restored. Without `prove` no image is passed through, because
    the caller knows that the network fits. Raises WeightsError if `pretrained` or `weights` cannot be used, ConfigError
    for an image size that the network does not take, PluginError for a builder that fails.
    """
    _check(backbone, image_size, pretrained)
    seed_all(derive_seed(seed, "model"))
    model = _built(backbone, num_classes, image_size, pretrained, channels)
    require_new(model, backbone.name)
    if weights is None:
        model = _adapted(model, backbone, image_size)
    else:
        model = _load(model, backbone, num_classes, image_size, weights, tell)
    if pretrained:
        zero_head(model, backbone, num_classes)
    if prove:
        _prove(model, backbone, num_classes, torch.zeros(1, channels, image_size, image_size))
    model.train()  # the plugin may return it in either mode
    return model


def assemble(backbone: Backbone, num_classes: int, image_size: int, channels: int = 3) -> nn.Module:
    """Return `backbone` with a head for `num_classes`, from the current random state; raise as `build_model`."""
    _check(backbone, image_size, False)
    return _adapted(_built(backbone, num_classes, image_size, False, channels), backbone, image_size)


def head_parameters(model: nn.Module, backbone: Backbone) -> set[str]:
    """Return the names of the head's parameters; raise PluginError if there are none."""
    modules = head_modules(model, backbone)
    names = {name for name, _ in model.named_parameters() if in_modules(name, modules)}
    if not names:
        raise PluginError(
            "the head of this backbone is unknown",
            given=f"{backbone.name}: {', '.join(modules) or 'no linear layer'} has no parameters",
            remedy="name the head's module in Backbone(head=...)",
        )
    return names


def zero_head(model: nn.Module, backbone: Backbone, num_classes: int) -> None:
    """Set the layers that compute the logits to zero: the last layer of each head module with one output per class.

    The first loss is then ln(num_classes), and the first gradients of the pretrained weights come from a head that
    already learns, not from random numbers. A head whose last layer is neither linear nor a 1x1 convolution stays
    unchanged.
    """
    named = dict(model.named_modules())
    with torch.no_grad():
        for head in (named[name] for name in head_modules(model, backbone) if name in named):
            layers = [layer for layer in head.modules() if _gives_logits(layer, num_classes)]
            for tensor in layers[-1].parameters(recurse=False) if layers else ():
                tensor.zero_()


def _gives_logits(layer: nn.Module, num_classes: int) -> bool:
    is_linear = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))
    weight = layer._parameters.get("weight") if is_linear else None  # None if it is computed from other parameters
    return weight is not None and len(weight) == num_classes


def head_modules(model: nn.Module, backbone: Backbone) -> tuple[str, ...]:
    """Return the names of the head's modules: those given by the backbone, else the last linear layer."""
    if backbone.head is not None:
        return (backbone.head,) if isinstance(backbone.head, str) else backbone.head
    return tuple(name for name, module in model.named_modules() if isinstance(module, nn.Linear))[-1:]


def _check(backbone: Backbone, image_size: int, pretrained: bool) -> None:
    if image_size < (backbone.min_image_size or 1):
        raise ConfigError(
            [f"image_size: {backbone.name} takes images of {backbone.min_image_size} px and more, got {image_size}"]
        )
    if pretrained and not backbone.has_pretrained:
        raise WeightsError(
            "this backbone has no pretrained weights",
            given=f"{backbone.name}",
            remedy="remove the option pretrained, give a file with --weights, or choose another backbone",
        )


def _adapted(model: nn.Module, backbone: Backbone, image_size: int) -> nn.Module:
    if backbone.adapt is None:
        return model
    with plugins_fault("a backbone's adapt(model, image_size) failed", whose=backbone.name):
        return _a_network(backbone.adapt(model, image_size), backbone, "adapt(model, image_size)")


def _load(
    model: nn.Module,
    backbone: Backbone,
    num_classes: int,
    image_size: int,
    weights: Path | GivenWeights,
    tell: Callable[[str], None],
) -> nn.Module:
    """Load `weights` into the network and adapt it; a head that is not in them starts at zero."""

    def convert(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        if backbone.convert_weights is None:
            return tensors
        with plugins_fault("a backbone's convert_weights(model, tensors) failed", whose=backbone.name):
            return backbone.convert_weights(network, tensors)

    adapt = partial(_adapted, backbone=backbone, image_size=image_size)
    model, has_head, said = load_given(model, weights, backbone.name, head_modules(model, backbone), convert, adapt)
    if not has_head:
        zero_head(model, backbone, num_classes)
    for text in said:
        tell(text)
    return model


def _built(backbone: Backbone, num_classes: int, image_size: int, pretrained: bool, channels: int = 3) -> nn.Module:
    extra = {SIZE: image_size} if takes_image_size(backbone) else {}
    builds_channels = channels != 3 and takes(backbone.build, CHANNELS)
    if builds_channels:
        extra[CHANNELS] = channels
    with plugins_fault(
        "a backbone's build(num_classes, pretrained) did not return a model",
        whose=backbone.name,
        remedy="correct the backbone, or choose another one",
    ):
        model = backbone.build(num_classes, pretrained, **extra)
    model = _a_network(model, backbone, "build(num_classes, pretrained)")
    return model if builds_channels else adapt_network(model, channels, backbone.name)


def _a_network(model: Any, backbone: Backbone, hook: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise PluginError(
            f"a backbone's {hook} did not return a torch.nn.Module",
            given=f"{backbone.name}: {type(model).__name__}",
            remedy="return the network itself",
        )
    return without_wrappers(model)


def _prove(model: nn.Module, backbone: Backbone, num_classes: int, image: torch.Tensor) -> None:
    """Pass one black image through, in eval mode and without random numbers, so that a misfit fails before epoch 1."""
    model.eval()  # the plugin may return it in either mode
    try:
        with torch.no_grad():
            output = model(image.contiguous(memory_format=torch.channels_last))  # the layout of a run
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise _failed(model, backbone, image, error) from error
    require_logits(output, backbone.name, 1, num_classes, "eval mode")
    if not isinstance(output, torch.Tensor):
        model.register_forward_hook(take_logits)
    require_state_of_tensors(model, backbone.name)


def _failed(model: nn.Module, backbone: Backbone, image: torch.Tensor, error: BaseException) -> AutomlError:
    """Explain why a network fails on an image: its memory layout, its size, or its own fault."""
    if _takes(model, image):
        return PluginError(
            "a backbone's model does not take images in channels_last memory",
            given=f"{backbone.name}: {described(error)}",
            remedy="use reshape() or flatten() in its forward(), in place of view()",
        )
    if image.shape[-1] != backbone.image_size and _takes_its_own_size(backbone):
        return ConfigError(
            [
                f"image_size: {backbone.name} does not take images of {image.shape[-1]} px; it is made for "
                f"{backbone.image_size} and failed with {described(error)}"
            ]
        )
    return fails(backbone.name, "eval mode", image.shape, error)


def _takes_its_own_size(backbone: Backbone) -> bool:
    """Return whether the network, built for its own size, takes such an image; if not, the size is not the cause.

    Random numbers are drawn, which is harmless because an error follows.
    """
    size = backbone.image_size
    try:
        model = _adapted(_built(backbone, 2, size, False), backbone, size)
    except AutomlError:
        return False
    model.eval()
    return _takes(model, torch.zeros(1, 3, size, size))


def _takes(model: nn.Module, image: torch.Tensor) -> bool:
    try:
        with torch.no_grad():
            model(image)
    except (Exception, SystemExit):  # the caller reports the first error
        return False
    return True
