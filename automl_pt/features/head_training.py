"""Trains a head alone on features, with the documented training, whose epochs then take milliseconds.

Order, batches, learning rates and early stopping are those of a run on unaugmented images; only the frozen body's
repeated results are read from the features. With features of mirror images an epoch uses each image or its mirror
image, like a run on images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import build_model, head_parameters
from automl_pt.config import TrainConfig
from automl_pt.core.errors import ConfigError, PluginError
from automl_pt.data.augmentation import make_plan
from automl_pt.data.balanced import balanced_order
from automl_pt.data.loader import batch_sizes
from automl_pt.data.prepare import Data
from automl_pt.features.head_step import HeadStep
from automl_pt.features.linear_probe import FrozenSplits, finished, fit_probe, frozen_splits
from automl_pt.features.network import FrozenBody, frozen_body, is_same_in_training
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.model.load import given_weights
from automl_pt.training.device import NumberFormat
from automl_pt.training.loop import AfterStep, Training

EVALUATION_BATCH = 1024
#: batches whose features are gathered at once, and steps between two questions whether to stop: each of these takes as
#: long as a part of the step itself
GATHERED, ASKED = 64, 32


@dataclass(frozen=True)
class FrozenStart:
    """What all trainings of a head share: the frozen network, its features, and the head's initial state."""

    body: FrozenBody
    splits: FrozenSplits
    head: dict[str, Tensor]

    @property
    def state(self) -> Mapping[str, Tensor]:
        """Return the tensors of the whole network, including the head's."""
        found: Mapping[str, Tensor] = self.body.network.state_dict()
        return found


#: cached per process, because building a network takes longer than training its head
_STARTS: dict[tuple[object, ...], FrozenStart | str] = {}


def frozen_start(config: TrainConfig, data: Data, backbone: Backbone, size: Preprocessing) -> FrozenStart | str:
    """Return what trainings of the head share, computed once per process; or why the network must run instead."""
    weights = Path(config.weights) if config.weights else None
    place = (str(weights), weights.stat().st_mtime_ns if weights is not None and weights.exists() else None)
    what = (config.backbone, config.backbone_options, config.pretrained, *place, size, data.manifest.fingerprint())
    key = (*what, config.features, config.precision, config.device, config.cache_dir, _builder(backbone))
    if key not in _STARTS:
        _STARTS.clear()  # keep one network only, because several may fill the memory
        _STARTS[key] = _start(config, data, backbone, size, weights)
    return _STARTS[key]


def _start(
    config: TrainConfig, data: Data, backbone: Backbone, size: Preprocessing, weights: Path | None
) -> FrozenStart | str:
    network = build_model(
        backbone,
        len(data.manifest.classes),
        size.image_size,
        pretrained=bool(config.pretrained),
        weights=given_weights(weights) if weights is not None else None,
        seed=config.seed,
        channels=size.pixels.channels,
    )
    try:
        body = frozen_body(network, backbone, size.image_size, size.pixels.channels)
    except PluginError as error:
        return error.given
    own = {f"{body.head}.{name}" for name, _ in body.linear.named_parameters()}
    if head_parameters(network, backbone) != own:
        return f"{backbone.name}: its head is more than the linear layer {body.head}"
    if not is_same_in_training(body, size.image_size, size.pixels.channels):
        return f"{backbone.name}: the input of its head differs in training, for example because of dropout"
    head = {name: tensor.clone() for name, tensor in body.linear.state_dict().items()}
    return FrozenStart(body, finished(frozen_splits(config, data, body, size, mirrored=_mirrored(config, data))), head)


def _builder(backbone: Backbone) -> object:
    """Return a key of the network's builder, equal for two backbones with the same function and arguments."""
    build = backbone.build
    return (build.func, build.args, *sorted(build.keywords.items())) if isinstance(build, partial) else build


def _mirrored(config: TrainConfig, data: Data) -> bool:
    return config.features == "mirrored" and data.hints.horizontal_flip


class HeadNetwork(nn.Module):
    """A head on features; its tensors have the same names as in the whole network."""

    def __init__(self, start: FrozenStart) -> None:
        super().__init__()
        linear = start.body.linear
        parts: list[nn.Module] = [nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)]
        parts[0].load_state_dict(start.head)
        for name in reversed(start.body.head.split(".")):
            holder = nn.Module()
            holder.add_module(name, parts[-1])
            parts.append(holder)
        self.linear = [parts[0]]  # in a list, so that the same tensors are not registered under a second name
        for name, child in parts[-1].named_children():
            self.add_module(name, child)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits float32[B, classes] of features float32[B, D]."""
        logits: Tensor = self.linear[0](features)
        return logits


class FeatureLoader:
    """Yields batches of features float32[B, D] and labels int64[B], as `Loader` does for images."""

    resident = None

    def __init__(
        self,
        split: tuple[Tensor, Tensor],
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        shuffle: bool,
        images: int,
        mirrored_epochs: int = 0,
        balanced: bool = False,
    ) -> None:
        features, labels = split
        #: rows of mirror images, if any, follow those of the `images`
        self.images, self.labels = features.to(device), labels[:images].numpy()
        self._labels = labels[:images].to(device)
        self.batch_sizes = batch_sizes(images, batch_size)
        self.seed, self.device, self.shuffle, self.mirrored_epochs = seed, device, shuffle, mirrored_epochs
        self.balanced, self.wait_seconds = balanced, 0.0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of `epoch`, without the first `start`."""
        began, count = time.perf_counter(), len(self.labels)
        flip = 0 < epoch <= self.mirrored_epochs
        plan = make_plan(count, seed=self.seed, epoch=epoch, max_shift=0, flip=flip, shuffle=self.shuffle)
        if self.balanced:
            plan = replace(plan, order=balanced_order(self.labels, seed=self.seed, epoch=epoch))
        order = torch.from_numpy(plan.order).to(self.device)
        rows = order + count * torch.from_numpy(plan.flips[plan.order].astype(np.int64)).to(self.device)
        spans = list(pairwise(np.cumsum([0, *self.batch_sizes]).tolist()))[start:]
        self.wait_seconds += time.perf_counter() - began
        for index in range(0, len(spans), GATHERED):
            low, high = spans[index][0], spans[index : index + GATHERED][-1][1]
            images, labels = self.images[rows[low:high]], self._labels[order[low:high]]
            for first, last in spans[index : index + GATHERED]:
                yield images[first - low : last - low], labels[first - low : last - low]


class HeadTraining(Training):
    """A training of a head on features: a batch of them always fits into memory."""

    start: FrozenStart

    def begin(self, start: FrozenStart, lr_scales: Mapping[str, float] | None) -> None:
        """Take the steps of a head, and keep what it is put together with."""
        self.start, weights = start, self.step.class_weights
        self.step = HeadStep(self.model, self.config, device=self.device, class_weights=weights, lr_scales=lr_scales)
        self.take_step, self.by_index = self.step, False

    def fit_into(self, free: int) -> None:
        """Do nothing, because a batch of features always fits."""

    def train_epoch(self, after_step: AfterStep, save: Callable[[], None]) -> bool:
        """Train one epoch from its beginning; return False when `after_step`, asked now and then, ended it."""
        self.loss_sum.zero_()
        sizes, progress = self.train_loader.batch_sizes, self.progress
        for features, labels in self.train_loader.epoch(progress.epochs_done + 1):
            loss = self.take_step(features, labels, lr=self.lr(progress.batches_done))
            self.loss_sum += loss * sizes[progress.batches_done]
            if self.ema is not None:
                self.ema.update(self.model)
            progress.batches_done += 1
            done = progress.batches_done
            if (done % ASKED == 0 or done == len(sizes)) and after_step(done, len(sizes)):
                return False
        return True


def head_training(
    start: FrozenStart,
    config: TrainConfig,
    data: Data,
    device: torch.device,
    lr_scales: Mapping[str, float] | None,
    **judged: Any,
) -> HeadTraining:
    """Return a training of the head that stands before its first step; `judged` goes to `Training` as it is.

    Raises ConfigError if the batch is larger than the training split.
    """
    images = data.manifest.counts()["train"]
    if config.batch_size > images:
        raise ConfigError([f"batch_size: at most the number of training images, {images}, got {config.batch_size}"])
    network = HeadNetwork(start)
    if config.head == "probe":
        fitted = fit_probe(start.splits, config, data)
        network.linear[0].load_state_dict({"weight": fitted.weight, "bias": fitted.bias}, strict=False)
    mirrored = config.augmented_epochs if _mirrored(config, data) else 0
    precision: NumberFormat = "fp32"
    loaders = (
        FeatureLoader(
            start.splits.train,
            batch_size=config.batch_size,
            seed=config.seed,
            device=device,
            shuffle=True,
            images=images,
            mirrored_epochs=mirrored,
            balanced=config.sampling == "balanced",
        ),
        FeatureLoader(
            start.splits.val,
            batch_size=EVALUATION_BATCH,
            seed=config.seed,
            device=device,
            shuffle=False,
            images=len(start.splits.val[1]),
        ),
    )
    training = HeadTraining(
        network.to(device),
        *loaders,  # type: ignore[arg-type]  # they have all that a training asks of a loader
        config.model_copy(update={"cuda_graph": False, "compile": "never"}),
        device=device,
        precision=precision,
        lr_scales=lr_scales,
        **judged,
    )
    training.begin(start, lr_scales)
    return training
