"""Several networks as one: the average of their probabilities."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from automl_pt.model.info import ModelInfo

_MEMBER = re.compile(r"members\.([0-9]|[1-9][0-9]{1,2})\.(.+)", re.DOTALL)


class Ensemble(nn.Module):
    """Takes the members' input, float32[B, 3, S, S], and returns the logarithm of their mean probabilities.

    This serves as logits, float32[B, C], because its softmax is the mean of the members' probabilities.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logarithm of the mean probabilities."""
        logs = torch.stack([member(images).float().log_softmax(-1) for member in self.members])
        return logs.logsumexp(0) - math.log(len(self.members))


def join_states(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the members' tensors under their names in an Ensemble."""
    return {f"members.{index}.{name}": tensor for index, state in enumerate(states) for name, tensor in state.items()}


def split_states(tensors: Mapping[str, Tensor], members: int) -> tuple[list[dict[str, Tensor]], list[str]]:
    """Return the tensors of each member of an Ensemble under its own names, and the names of unknown tensors."""
    parts: list[dict[str, Tensor]] = [{} for _ in range(members)]
    others = []
    for name, tensor in tensors.items():
        found = _MEMBER.fullmatch(name)
        if found and int(found[1]) < members:
            parts[int(found[1])][found[2]] = tensor
        else:
            others.append(name)
    return parts, others


def join_infos(infos: Sequence[ModelInfo], titles: Sequence[str]) -> ModelInfo:
    """Describe an ensemble of models with the same classes and preprocessing; `titles` identify them."""
    members = [
        {"title": title, "backbone": info.backbone, "config": info.config, "metrics": info.metrics}
        for title, info in zip(titles, infos, strict=True)
    ]
    first = infos[0]
    return replace(first, metrics={}, history=[], recipe=None, members=members)
