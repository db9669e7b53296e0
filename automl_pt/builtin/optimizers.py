"""The built-in optimisers: the documented SGD, and two from libraries, which are imported when a run uses them.

AdamW is PyTorch's own; its values for fine-tuning are those of Hugging Face's guide to fine-tuning an image classifier
(blog/fine-tune-vit, 2022: batches of 16, 4 epochs, 1,034 photographs), because ConvNeXt's 5e-5 for batches of 512 was
worse (docs/evidence/transfer.md). Schedule-Free AdamW (Defazio et al., The Road Less Scheduled, arXiv 2405.15682,
2024) is that of its authors' package `schedulefree`, because neither PyTorch nor timm has it. Building either imports
PyTorch's compiler, which costs about as much time as importing torch; the documented SGD does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from automl_pt.plugins.hookspecs import hookimpl
from automl_pt.plugins.optimizers import Optimizer


@hookimpl
def register_optimizers() -> list[Optimizer]:
    """Register `sgd`, `adamw` and `schedule-free-adamw`."""
    return [
        Optimizer(
            "sgd",
            None,
            capturable=True,
            description="SGD with Nesterov momentum, as documented; weight decay is an L2 penalty on the loss",
        ),
        Optimizer(
            "adamw",
            adamw,
            published={"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-2},
            fine_tuning={"lr": 2e-4, "weight_decay": 0.0},
            search_lr=(3e-5, 1e-2),
            fine_tuning_lr=(1e-5, 1e-3),
            capturable=True,
            description="PyTorch's AdamW, momentum its beta1; weights shrink by weight decay times learning rate",
        ),
        Optimizer(
            "schedule-free-adamw",
            schedule_free_adamw,
            published={"lr": 2.5e-3, "momentum": 0.9, "weight_decay": 0.0, "schedule": "constant"},
            search_lr=(1e-4, 3e-2),
            fine_tuning_lr=(3e-5, 3e-3),
            averages=True,
            needs_momentum=True,
            description="AdamW that averages its weights instead of lowering its rate, momentum its beta1; decays as "
            "AdamW, at the weights that are trained",
        ),
    ]


def adamw(groups: Sequence[dict[str, Any]], momentum: float) -> Any:
    """Build PyTorch's AdamW, in one kernel for all parameters."""
    from torch.optim import AdamW

    on_cuda = all(parameter.is_cuda for group in groups for parameter in group["params"])
    return AdamW(groups, betas=(momentum, 0.999), fused=True, capturable=on_cuda)


def schedule_free_adamw(groups: Sequence[dict[str, Any]], momentum: float) -> Any:
    """Build the Schedule-Free AdamW of its authors."""
    from schedulefree import AdamWScheduleFree

    return AdamWScheduleFree(groups, betas=(momentum, 0.999))
