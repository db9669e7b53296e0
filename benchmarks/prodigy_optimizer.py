"""A plugin with the optimiser Prodigy of its authors' package: `pip install prodigyopt`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from automl_pt import Optimizer, hookimpl


def prodigy(groups: Sequence[dict[str, Any]], momentum: float) -> Any:
    from prodigyopt import Prodigy

    return Prodigy(groups, betas=(momentum, 0.999))


@hookimpl
def register_optimizers() -> list[Optimizer]:
    """Register `prodigy` (Mishchenko and Defazio, arXiv 2306.06101, 2024), which estimates the learning rate itself."""
    return [
        Optimizer(
            "prodigy",
            prodigy,
            published={"lr": 1.0, "momentum": 0.9, "weight_decay": 0.0, "schedule": "cosine"},
            search_lr=(0.1, 10.0),
            fine_tuning_lr=(0.1, 10.0),
            description="AdamW whose rate is a factor on an estimate of its own",
        )
    ]
