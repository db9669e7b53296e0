"""How the learning rate changes over a run: a pure function of the optimiser step."""

from __future__ import annotations

import math


def lr_factor(name: str, step: int, *, steps_per_epoch: float, epochs: int, warmup_epochs: int = 0) -> float:
    """Return what the initial learning rate is multiplied with at `step`, counted from 0 over the whole run.

    During `warmup_epochs` the factor rises linearly to 1. Over the rest, with progress p from 0 to 1: `constant` is 1;
    `step` is 0.1 from p = 0.5 and 0.01 from p = 0.75; `polynomial` is (1 - p)^2; `cosine` is (1 + cos(pi p)) / 2
    (Loshchilov and Hutter, 2017, without restarts). A run in miniature has a fraction of a step per epoch.
    """
    warmup = warmup_epochs * steps_per_epoch
    if step < warmup:
        return min(1.0, (step + 1) / warmup)
    progress = (step - warmup) / (epochs * steps_per_epoch - warmup)
    if name == "constant":
        return 1.0
    if name == "step":
        return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01
    if name == "polynomial":
        return (1 - progress) ** 2
    return (1 + math.cos(math.pi * progress)) / 2
