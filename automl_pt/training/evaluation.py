"""The loss and accuracy of a model over a split: sums over images divided once, never a mean of batch means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automl_pt.training.distributed import ALONE, Group
from automl_pt.training.out_of_memory import is_out_of_memory

if TYPE_CHECKING:
    from automl_pt.data.loader import Loader
    from automl_pt.training.device import NumberFormat

DTYPES: dict[NumberFormat, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Evaluation:
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
) -> Evaluation:
    """Run `model` in evaluation mode over every image of `loader`, and put its mode back.

    The cross-entropy is computed in float32 from the logits, without smoothing or class weights. With several processes
    each brings a block of the images, and all get the figures of the whole. At most `at_once` images go through the
    network at a time, and half as many whenever memory runs out.
    """
    was_training = model.training
    model.eval()
    losses, ranks, classes = [torch.empty(0, device=device)], [torch.empty(0, dtype=torch.int64, device=device)], 0
    with torch.inference_mode(), autocast(device, precision):
        for images, labels in loader.epoch(0):
            logits, at_once = _forward(model, images, at_once)
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
            ranks.append(_ranks(logits, labels))
            classes = logits.shape[1]
    model.train(was_training)
    per_image, rank = group.gather(torch.cat(losses).cpu()).double(), group.gather(torch.cat(ranks).cpu())
    classes = group.highest(classes)
    top5 = (rank < 5).double().mean().item() if classes > 5 else None
    return Evaluation(per_image.mean().item(), (rank == 0).double().mean().item(), top5, per_image, at_once)


def _forward(model: nn.Module, images: Tensor, at_once: int | None) -> tuple[Tensor, int | None]:
    """Return the logits of float[B, 3, S, S] as float32[B, C], and how many images memory lasts for at a time."""
    while True:
        count = min(at_once or len(images), len(images))
        try:
            parts = images.tensor_split(math.ceil(len(images) / count))
            return torch.cat([model(part) for part in parts]).float(), at_once
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or count == 1:
                raise
        at_once = math.ceil(count / 2)
        if images.device.type == "cuda":
            torch.cuda.empty_cache()


def _ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the classes scored above the true one, int64[B]; on equal scores the lower index comes first, as argmax."""
    own = logits.gather(1, labels[:, None])
    columns = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > own) | ((logits == own) & (columns < labels[:, None])) | ~torch.isfinite(own)
    return before.sum(1)
