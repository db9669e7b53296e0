"""From a backbone to a model: seeded, fitted to classes and image size, and proved to run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from automl_pt.backbone import Backbone
from automl_pt.backbone_options import SIZE, takes_image_size
from automl_pt.errors import AutomlError, ConfigError, PluginError, WeightsError
from automl_pt.installation import explain
from automl_pt.seeds import derive_seed
from automl_pt.weights import in_modules, load_tensors, misfit_error, misfits, read_weights


def build_model(
    backbone: Backbone,
    num_classes: int,
    image_size: int,
    *,
    pretrained: bool = False,
    weights: Path | None = None,
    seed: int,
) -> nn.Module:
    """Return `backbone` with a head for `num_classes`, in train mode, its random numbers from `seed` (any integer).

    A new head on pretrained weights starts at zero (see `zero_head`). PyTorch's global random state is left where
    building ended. Raises WeightsError when `pretrained` or `weights`
    cannot be honoured, ConfigError for an image size the network cannot take, PluginError for a builder that fails.
    """
    _check(backbone, image_size, pretrained)
    torch.manual_seed(derive_seed(seed, "model"))
    model = _built(backbone, num_classes, image_size, pretrained)
    model = (
        _load(model, backbone, num_classes, image_size, weights) if weights else _adapted(model, backbone, image_size)
    )
    if pretrained:
        zero_head(model, backbone, num_classes)
    _prove(model, backbone, num_classes, image_size)
    return model.train()


def head_parameters(model: nn.Module, backbone: Backbone) -> set[str]:
    """Return the names of the head's parameters; raise PluginError when there are none."""
    modules = head_modules(model, backbone)
    names = {name for name, _ in model.named_parameters() if in_modules(name, modules)}
    if not names:
        raise PluginError(
            "a backbone's head must be known",
            given=f"{backbone.name}: {', '.join(modules) or 'no linear layer'} has no parameters",
            remedy="name the head's module in Backbone(head=...)",
        )
    return names


def zero_head(model: nn.Module, backbone: Backbone, num_classes: int) -> None:
    """Set to zero what computes the logits in each of the head's modules: its last layer with an output for each class.

    The first loss is then ln(num_classes), and the first gradients of the pretrained weights are those of a head that
    has begun to learn, not of random numbers. A head whose last layer is no linear layer or 1x1 convolution stays as
    the backbone made it.
    """
    named = dict(model.named_modules())
    with torch.no_grad():
        for head in (named[name] for name in head_modules(model, backbone) if name in named):
            layers = [layer for layer in head.modules() if _gives_logits(layer, num_classes)]
            for tensor in layers[-1].parameters(recurse=False) if layers else ():
                tensor.zero_()


def _gives_logits(layer: nn.Module, num_classes: int) -> bool:
    is_linear = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))
    weight = layer._parameters.get("weight") if is_linear else None  # absent where it is computed from others
    return weight is not None and len(weight) == num_classes


def head_modules(model: nn.Module, backbone: Backbone) -> tuple[str, ...]:
    """Return the names of the modules that make up the head: as told by the backbone, else the last linear layer."""
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
            "pretrained weights must exist",
            given=f"{backbone.name} offers none",
            remedy="leave pretrained out, give a file with --weights, or pick another of `automl-pt backbones`",
        )


def _adapted(model: nn.Module, backbone: Backbone, image_size: int) -> nn.Module:
    return model if backbone.adapt is None else backbone.adapt(model, image_size)


def _load(model: nn.Module, backbone: Backbone, num_classes: int, image_size: int, path: Path) -> nn.Module:
    """Load `path` before adapting, as published weights want it, or after, as a model trained at this size wants it."""
    tensors: Mapping[str, torch.Tensor] = read_weights(path)
    if backbone.convert_weights is not None:
        tensors = backbone.convert_weights(model, tensors)
    heads = head_modules(model, backbone)
    before = misfits(model, tensors, heads)
    if before:
        model = _adapted(model, backbone, image_size)
        after = misfits(model, tensors, heads)
        if after:
            raise misfit_error(path, backbone.name, min(before, after, key=len))
    if not load_tensors(model, tensors, heads):
        zero_head(model, backbone, num_classes)
    return model if before else _adapted(model, backbone, image_size)


def _built(backbone: Backbone, num_classes: int, image_size: int, pretrained: bool) -> nn.Module:
    size = {SIZE: image_size} if takes_image_size(backbone) else {}
    try:
        model = backbone.build(num_classes, pretrained, **size)
    except AutomlError:
        raise
    except Exception as error:
        raise explain(error) or PluginError(
            "a backbone's build(num_classes, pretrained) must return a model",
            given=f"{backbone.name}: {type(error).__name__}: {error}",
            remedy="correct the backbone, or pick another one",
        ) from error
    if not isinstance(model, nn.Module):
        raise PluginError(
            "a backbone's build(num_classes, pretrained) must return a torch.nn.Module",
            given=f"{backbone.name}: {type(model).__name__}",
            remedy="return the network itself",
        )
    return model


def _prove(model: nn.Module, backbone: Backbone, num_classes: int, image_size: int) -> None:
    """Pass one black image through, in eval mode and without random numbers: a misfit shows now, not in epoch 1."""
    image = torch.zeros(1, 3, image_size, image_size)
    try:
        with torch.no_grad():
            logits = model.eval()(image.contiguous(memory_format=torch.channels_last))  # as a run lays out its own
            if isinstance(getattr(logits, "logits", None), torch.Tensor):
                model.register_forward_hook(_take_logits)
                logits = logits.logits
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        if _takes(model, image):
            raise PluginError(
                "a backbone's model must take images in channels_last memory",
                given=f"{backbone.name}: {type(error).__name__}: {error}",
                remedy="use reshape() or flatten() in its forward(), where it says view()",
            ) from error
        raise ConfigError(
            [
                f"image_size: {backbone.name} must accept images of {image_size} px; it is made for "
                f"{backbone.image_size} and failed with {type(error).__name__}: {error}"
            ]
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, num_classes):
        shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise PluginError(
            "a backbone's model must return logits [images, classes]",
            given=f"{backbone.name}: {shape} for 1 image and {num_classes} classes",
            remedy="return one number for each class and image",
        )


def _takes(model: nn.Module, image: torch.Tensor) -> bool:
    try:
        with torch.no_grad():
            model(image)
    except (AssertionError, RuntimeError, TypeError, ValueError):
        return False
    return True


def _take_logits(model: nn.Module, images: object, output: Any) -> torch.Tensor:
    """Return the logits of a model that returns them within an object, as those of transformers do."""
    logits: torch.Tensor = output.logits
    return logits
