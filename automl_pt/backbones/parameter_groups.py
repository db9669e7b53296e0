"""A model's parameters in groups from the input to the head, for freezing and layer-wise learning rates."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import head_parameters
from automl_pt.backbones.weights import in_modules
from automl_pt.core.errors import ConfigError, PluginError
from automl_pt.plugins.faults import plugins_fault


def parameter_groups(model: nn.Module, backbone: Backbone) -> list[list[str]]:
    """Return the names of all parameters in groups from the input to the head, which is the last group.

    Parameters outside all groups, such as a class token, belong to the first. Raises PluginError if
    `Backbone(param_groups=...)` names a module that the model does not have.
    """
    told = _told(model, backbone) if backbone.param_groups is not None else _children(model)
    head = head_parameters(model, backbone)
    body = [name for name, _ in model.named_parameters() if name not in head]
    groups: list[list[str]] = [[] for _ in range(max(1, len(told)))]
    for name in body:
        groups[next((n for n, modules in enumerate(told) if name in modules or in_modules(name, modules)), 0)] += [name]
    return [*filter(None, groups), [name for name, _ in model.named_parameters() if name in head]]


def freeze(model: nn.Module, backbone: Backbone, groups: int) -> None:
    """Freeze the first `groups` groups; raise ConfigError if none would remain trainable."""
    found = parameter_groups(model, backbone)
    if groups >= len(found):
        raise ConfigError([f"freeze_groups: {backbone.name} has {len(found)} groups; at most {len(found) - 1} freeze"])
    frozen = {name for group in found[:groups] for name in group}
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)


def lr_scales(model: nn.Module, backbone: Backbone, decay: float, head_factor: float = 1.0) -> dict[str, float]:
    """Return the factor on each parameter's learning rate: `head_factor` in the head, which `decay` does not affect.

    The group before the head has the factor `decay`, and each group before that another factor of `decay`.
    """
    found = parameter_groups(model, backbone)
    scales = {name: decay ** (len(found) - 1 - place) for place, group in enumerate(found) for name in group}
    return {**scales, **dict.fromkeys(found[-1], head_factor)}


def _children(model: nn.Module) -> list[list[str]]:
    return [[name] for name, child in model.named_children() if any(True for _ in child.parameters())]


def _told(model: nn.Module, backbone: Backbone) -> Sequence[Sequence[str]]:
    assert backbone.param_groups is not None
    with plugins_fault("a backbone's param_groups(model) failed", whose=backbone.name):
        groups = [list(group) for group in backbone.param_groups(model)]
    known = {name for name, _ in model.named_modules()} | {name for name, _ in model.named_parameters()}
    unknown = sorted({name for group in groups for name in group} - known)
    if unknown or not groups:
        raise PluginError(
            "a backbone's parameter groups name modules that its model does not have",
            given=f"{backbone.name}: {', '.join(unknown[:5]) or 'no group'}",
            remedy="name them in Backbone(param_groups=...) as model.named_modules() does",
        )
    return groups
