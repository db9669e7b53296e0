"""Batch normalisation during training: which layers keep and use their running statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn


def train_mode(model: nn.Module, *, keep_statistics: bool = False) -> None:
    """Set `model` to training mode, but keep the statistics of frozen batch normalisation.

    With `keep_statistics` all batch normalisation stays in evaluation mode: it uses its running statistics, and
    only its weight and bias train.
    """
    model.train()
    modules = dict(model.named_modules())  # a scripted network cannot look up a module by name
    for name, layer in normalisations(model):
        if keep_statistics or _is_frozen(modules, name):
            layer.eval()


def normalisations(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name and module of each layer that normalises by running statistics, PyTorch's or not."""
    for name, module in model.named_modules():
        buffers = {own for own, _ in module.named_buffers(recurse=False)}  # buffers that are None are not listed
        if isinstance(module, nn.modules.batchnorm._BatchNorm) or buffers & {"running_mean", "running_var"}:
            yield name, module


def moving_buffers(model: nn.Module) -> list[Tensor]:
    """Return the model's floating-point buffers, except those of normalisation that keeps its statistics."""
    kept = {id(buffer) for _, layer in normalisations(model) if not layer.training for buffer in layer.buffers(False)}
    return [buffer for buffer in model.buffers() if buffer.is_floating_point() and id(buffer) not in kept]


def _is_frozen(modules: Mapping[str, nn.Module], name: str) -> bool:
    """Return whether all parameters of a layer are frozen; for a layer without any, those of its parent module."""
    while True:
        parameters = list(modules[name].parameters())
        if parameters or not name:
            return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
        name = name.rpartition(".")[0]
