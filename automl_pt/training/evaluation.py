"""The metrics of a model over a split: computed once over all images, never as a mean of batch means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automl_pt.builtin.validation_metrics import METRICS
from automl_pt.core.errors import ConfigError
from automl_pt.plugins.faults import described
from automl_pt.plugins.metrics import Metric, Predictions
from automl_pt.training.distributed import ALONE, Group
from automl_pt.training.micro_batch import MicroBatch

if TYPE_CHECKING:
    from automl_pt.data.loader import Loader
    from automl_pt.training.device import NumberFormat

DTYPES: dict[NumberFormat, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ValidationResult:
    """The metrics by name, without those that do not exist here. `losses` are float64[N], on the CPU.

    `at_once` is how many images memory lasted for; None for all that came. `failures` say which metrics failed.
    """

    metrics: Mapping[str, float]
    losses: Tensor
    at_once: int | None = None
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Return the mean cross-entropy of an image."""
        return self.metrics.get("loss", math.nan)

    @property
    def accuracy(self) -> float:
        """Return the share of the images that are classified correctly."""
        return self.metrics.get("accuracy", math.nan)

    @property
    def top5(self) -> float | None:
        """Return the share of images whose class is among the first five; None for five classes or fewer."""
        return self.metrics.get("top5")


def autocast(device: torch.device, precision: NumberFormat) -> torch.autocast:
    """Return the context in which a forward pass computes in `precision`."""
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
    metrics: Sequence[Metric] = METRICS,
) -> ValidationResult:
    """Run `model` in evaluation mode over every image of `loader`, and restore its mode.

    The cross-entropy is computed in float32 from the logits, without smoothing or class weights. With several processes
    each evaluates a block of the images, and all get the figures of the whole. At most `at_once` images go through the
    network at a time, and half as many whenever memory runs out.
    """
    was_training, micro_batch = model.training, MicroBatch(at_once)
    model.eval()
    losses, placed, classes = [torch.empty(0, device=device)], [torch.empty(0, 3, dtype=torch.int64, device=device)], 0
    with torch.inference_mode(), autocast(device, precision):
        for images, labels in loader.epoch(0):
            logits = micro_batch(model, images).float()
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
            placed.append(_placed(logits, labels))
            classes = logits.shape[1]
    model.train(was_training)
    per_image, rows = group.gather(torch.cat(losses).cpu()).double(), group.gather(torch.cat(placed).cpu())
    found = Predictions(rows[:, 0].contiguous(), rows[:, 1].contiguous(), per_image, rows[:, 2], group.highest(classes))
    # there is nothing to measure where a refit has no images left to validate on
    values, failures = measure(metrics, found) if len(rows) else ({}, {})
    return ValidationResult(values, per_image, micro_batch.at_once, failures)


def measure(metrics: Sequence[Metric], found: Predictions) -> tuple[dict[str, float], dict[str, str]]:
    """Return the value of each metric that exists, and what went wrong in those that failed; both by name.

    The metric of a plugin that fails is not a reason to lose an epoch.
    """
    values: dict[str, float] = {}
    failures: dict[str, str] = {}
    for metric in metrics:
        try:
            value = metric.compute(found)
            if value is not None:
                values[metric.name] = float(value)
        except (Exception, SystemExit) as error:
            failures[metric.name] = described(error)
    return values, failures


def require_value(objective: Metric, classes: int) -> None:
    """Raise ConfigError where a metric cannot be the objective, because so many classes have none, or it fails."""
    labels = torch.arange(2 * classes) % classes
    found = Predictions(labels, labels, torch.full((len(labels),), 0.1).double(), torch.zeros_like(labels), classes)
    values, failures = measure([objective], found)
    if not math.isfinite(values.get(objective.name, math.nan)):
        why = failures.get(objective.name, f"there is none for {classes} classes")
        raise ConfigError([f"objective: {objective.name} cannot be used: {why}"])


def predictions(logits: Tensor, labels: Tensor) -> Predictions:
    """Return what logits float32[N, C] predict for labels int64[N]."""
    rows = _placed(logits, labels).cpu()
    losses = F.cross_entropy(logits, labels, reduction="none").cpu().double()
    return Predictions(rows[:, 0].contiguous(), rows[:, 1].contiguous(), losses, rows[:, 2], logits.shape[1])


def _placed(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the true class, the predicted one and the true one's rank of each image, int64[B, 3].

    The rank counts the classes scored above the true one; on equal scores the lower index comes first, as in argmax.
    """
    own, classes = logits.gather(1, labels[:, None]), logits.shape[1]
    columns = torch.arange(classes, device=logits.device)
    before = (logits > own) | ((logits == own) & (columns < labels[:, None])) | ~torch.isfinite(own)
    rank = before.sum(1)
    predicted = torch.where(rank == 0, labels, logits.argmax(1))
    return torch.stack([labels, predicted.where(torch.isfinite(own[:, 0]), classes), rank], 1)
