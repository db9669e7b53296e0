"""An exponential moving average of a model's weights and statistics, computed without waiting for the device.

PyTorch's `AveragedModel` computes the same, but reads its counter from the device in every step.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    """Keeps in `module` the average of a model, with the share `decay` of what it was at each update.

    The first update copies the model. Whole numbers, as counters of batches, are always copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module, self.decay, self.updates = copied(model), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take over the model's weights and statistics by the share that is not kept."""
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
        """Go back to what `state_dict` returned."""
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a network whose parameters ask for no gradients.

    What a network computed from its parameters and keeps, as weight normalisation does, is cut off from them first:
    it cannot be copied otherwise, and is computed anew in every pass.
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
