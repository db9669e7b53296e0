"""The learning-rate schedule of a run: a pure function of the optimiser step."""

from __future__ import annotations

import math


def lr_factor(name: str, step: int, *, steps_per_epoch: int, epochs: int, warmup_epochs: int = 0) -> float:
    """Return the factor on the initial learning rate at `step`, counted from 0 over the whole run.

    During `warmup_epochs` the factor rises linearly to 1. Over the rest, with progress p from 0 to 1: `constant` is 1;
    `step` is 0.1 from p = 0.5 and 0.01 from p = 0.75; `polynomial` is (1 - p)^2; `cosine` is (1 + cos(pi p)) / 2
    (Loshchilov and Hutter, 2017, without restarts).
    """
    warmup = warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / (epochs * steps_per_epoch - warmup)
    if name == "constant":
        return 1.0
    if name == "step":
        return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01
    if name == "polynomial":
        return (1 - progress) ** 2
    return (1 + math.cos(math.pi * progress)) / 2


def proxy_lr_factor(step: int, steps: int, warmup: float = 0.0) -> float:
    """Return the factor on the learning rate at `step` of a proxy run of `steps` steps.

    It is 1 for half of them and then falls linearly to 0, so that the loss reflects what was learnt and not how much
    the rate disturbs the weights. It rises to 1 within the share `warmup` of the steps.
    """
    rising = (step + 1) / (warmup * steps) if warmup else 1.0
    return min(1.0, rising, 2 * (1 - (step + 0.5) / steps))
