"""What an optimiser is: a name, how to build it, and the values that its authors published for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: settings for which an optimiser may publish a value; it holds where the user gives none
PUBLISHED = ("lr", "momentum", "weight_decay", "schedule", "warmup_epochs")


@dataclass(frozen=True)
class Optimizer:
    """A named optimiser.

    `build(groups, momentum)` returns a new `torch.optim.Optimizer`. `groups` are its parameter groups: dictionaries of
    `params`, `lr` and `weight_decay`. The trainer sets each group's `lr` before every step, because schedule, layer
    decay and head factor are its own; of the rest the optimiser decides. All that a resumed run needs is in its
    `state_dict()`, as tensors, numbers, texts and their lists.
    """

    name: str
    #: of (groups, momentum); None: the trainer's own SGD, which is `sgd` alone
    build: Callable[[Sequence[dict[str, Any]], float], Any] | None
    #: published values of `lr`, `momentum`, `weight_decay`, `schedule` and `warmup_epochs`: what a run uses where the
    #: user does not say; those that are not here have the setting's own default
    published: Mapping[str, float | str] = field(default_factory=dict)
    #: published values where the whole network trains from weights; they come before those of `published` in a single
    #: run and in a rival, and their `lr` is that of trial 0
    fine_tuning: Mapping[str, float | str] = field(default_factory=dict)
    #: learning rates that a search draws from where the user names none: from random weights, and from trained ones
    search_lr: tuple[float, float] = (1e-4, 1.0)
    fine_tuning_lr: tuple[float, float] = (3e-4, 3e-2)
    #: whether weights are evaluated and saved at an average that the optimiser keeps: it then has `eval()`, which puts
    #: the average into the parameters, and `train()`, which restores the trained weights
    averages: bool = False
    #: whether a step can be recorded as a CUDA graph: its whole state is tensors, which begin at zero and change in
    #: place, and the learning rate may be a tensor
    capturable: bool = False
    #: whether it needs a `momentum` above 0
    needs_momentum: bool = False
    #: for listings: one line, with what `weight_decay` means to it
    description: str = ""
