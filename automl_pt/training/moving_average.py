"""An exponential moving average of a model's weights and statistics, computed without synchronising the device.

PyTorch's `AveragedModel` computes the same, but reads its counter from the device in every step.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    """Keeps in `module` the average of a model; each update keeps the share `decay`.

    The first update copies the model. Integer tensors, such as batch counters, are always copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module, self.decay, self.updates = copied(model), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the model's weights and statistics with the share `1 - decay`."""
        share = 1 - self.decay if self.updates else 1.0
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in real], [theirs for _, theirs in real], share)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged tensors and the number of updates."""
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a network whose parameters need no gradients.

    Tensors that a network computed from its parameters and stores, as weight normalisation does, are detached first,
    because they cannot be copied otherwise; they are computed again in every pass.
    """
    for module in model.modules():
        kept = {name: value for name, value in vars(module).items() if isinstance(value, Tensor) and not value.is_leaf}
        vars(module).update({name: value.detach() for name, value in kept.items()})
    with torch.no_grad():
        twin = deepcopy(model)
    for parameter in twin.parameters():  # a compiled module has no requires_grad_() of its own
        parameter.requires_grad_(False)
    return twin


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
