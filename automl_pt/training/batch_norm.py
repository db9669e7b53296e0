"""Batch normalisation while a network trains: which layers keep their running statistics, and use them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


def train_mode(model: nn.Module, *, keep_statistics: bool = False) -> None:
    """Put `model` in training mode, but leave the statistics of frozen batch normalisation as they are.

    With `keep_statistics` all batch normalisation stays in evaluation mode: it uses the statistics that it has, and
    only its weight and bias train.
    """
    model.train()
    for name, layer in normalisations(model):
        if keep_statistics or _is_frozen(model, name):
            layer.eval()


def normalisations(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name and module of each layer that normalises by running statistics, PyTorch's own or not."""
    for name, module in model.named_modules():
        statistics = module._buffers.get("running_mean"), module._buffers.get("running_var")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) or any(item is not None for item in statistics):
            yield name, module


def moving_buffers(model: nn.Module) -> list[Tensor]:
    """Return the model's buffers of real numbers, but those of normalisation that keeps its statistics."""
    kept = {id(buffer) for _, layer in normalisations(model) if not layer.training for buffer in layer.buffers(False)}
    return [buffer for buffer in model.buffers() if buffer.is_floating_point() and id(buffer) not in kept]


def _is_frozen(model: nn.Module, name: str) -> bool:
    """Say whether no parameter of a layer trains; of a layer without any, none of the module that holds it."""
    while True:
        parameters = list(model.get_submodule(name).parameters())
        if parameters or not name:
            return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
        name = name.rpartition(".")[0]
