"""The loss and accuracy of a model over a split: sums over images divided once, never a mean of batch means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automl_pt.training.distributed import ALONE, Group
from automl_pt.training.micro_batch import MicroBatch

if TYPE_CHECKING:
    from automl_pt.data.loader import Loader
    from automl_pt.training.device import NumberFormat

DTYPES: dict[NumberFormat, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ValidationResult:
    """Means per image; `top5` is None where there are five classes or fewer. `losses` are float64[N], on the CPU.

    `at_once` is how many images memory lasted for; None for all that came.
    """

    loss: float
    accuracy: float
    top5: float | None
    losses: Tensor
    at_once: int | None = None


def autocast(device: torch.device, precision: NumberFormat) -> torch.autocast:
    """Return the context in which a forward pass runs in `precision`."""
    enabled = precision != "fp32"
    return torch.autocast(device.type, DTYPES[precision] if enabled else None, enabled=enabled, cache_enabled=enabled)


def evaluate(
    model: nn.Module,
    loader: Loader,
    *,
    device: torch.device,
    precision: NumberFormat = "fp32",
    group: Group = ALONE,
    at_once: int | None = None,
) -> ValidationResult:
    """Run `model` in evaluation mode over every image of `loader`, and put its mode back.

    The cross-entropy is computed in float32 from the logits, without smoothing or class weights. With several processes
    each brings a block of the images, and all get the figures of the whole. At most `at_once` images go through the
    network at a time, and half as many whenever memory runs out.
    """
    was_training, micro_batch = model.training, MicroBatch(at_once)
    model.eval()
    losses, ranks, classes = [torch.empty(0, device=device)], [torch.empty(0, dtype=torch.int64, device=device)], 0
    with torch.inference_mode(), autocast(device, precision):
        for images, labels in loader.epoch(0):
            logits = micro_batch(model, images).float()
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
            ranks.append(_ranks(logits, labels))
            classes = logits.shape[1]
    model.train(was_training)
    per_image, rank = group.gather(torch.cat(losses).cpu()).double(), group.gather(torch.cat(ranks).cpu())
    classes = group.highest(classes)
    top5 = (rank < 5).double().mean().item() if classes > 5 else None
    return ValidationResult(
        per_image.mean().item(), (rank == 0).double().mean().item(), top5, per_image, micro_batch.at_once
    )


def _ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the classes scored above the true one, int64[B]; on equal scores the lower index comes first, as argmax."""
    own = logits.gather(1, labels[:, None])
    columns = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > own) | ((logits == own) & (columns < labels[:, None])) | ~torch.isfinite(own)
    return before.sum(1)
