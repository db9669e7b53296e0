"""What benchmarks of the trainer compare: ours, a bare loop with our kernels (B), and a plain torchvision run (P)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from torch import nn
from torch.nn import functional as F

from automl_pt.backbones.build import build_model
from automl_pt.config import TrainConfig
from automl_pt.data.loader import Loader
from automl_pt.data.pixels import Pixels
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs.setup import EVALUATION_BATCH
from automl_pt.training.device import choose_precision
from automl_pt.training.evaluation import autocast
from automl_pt.training.layout import arrange, has_channels_last
from automl_pt.training.loop import Training

BATCH = 16


class Sides:
    """The same images, network and settings for every side of a comparison."""

    def __init__(
        self, data: str, name: str, side: int, images: int, device: torch.device, *, batch: int = BATCH, **settings: Any
    ) -> None:
        self.plugins, self.name, self.side, self.device = load_plugins(), name, side, device
        self.backbone = self.plugins.backbone(name)
        self.config = TrainConfig(dataset=data, batch_size=batch, epochs=1, lr=0.01, pretrained=False, **settings)
        self.precision = choose_precision("auto", device)
        self.channels_last = has_channels_last(device, self.precision)
        self.data = prepare(self.config, self.plugins)
        self.classes = len(self.data.manifest.classes)
        self.train, self.val = (self._some(split, images) for split in ("train", "val"))

    def _some(self, split: Any, images: int) -> Pixels:
        found = self.data.pixels(split, self.side)
        rows = np.linspace(0, len(found.labels) - 1, min(images, len(found.labels))).astype(int)
        return Pixels(found.images[rows], found.labels[rows], tuple(found.names[row] for row in rows))

    def loader(self, pixels: Pixels, batch: int, *, training: bool) -> Loader:
        return Loader(
            pixels,
            batch_size=batch,
            mean=self.backbone.mean,
            std=self.backbone.std,
            seed=self.config.seed,
            device=self.device,
            hints=self.data.hints,
            augmented_epochs=99 if training else 0,
            shuffle=training,
            channels_last=self.channels_last,
        )

    def model(self) -> nn.Module:
        model = build_model(self.backbone, self.classes, self.side, seed=self.config.seed)
        return arrange(model, self.device, self.precision)

    def ours(self) -> Training:
        loaders = (
            self.loader(self.train, self.config.batch_size, training=True),
            self.loader(self.val, EVALUATION_BATCH, training=False),
        )
        return Training(self.model(), *loaders, self.config, device=self.device, precision=self.precision)

    def plain(self, folder: Path, *, training: bool, shift: bool = False, workers: int | None = None) -> Any:
        """Return P's loader: the usual transforms on every image, every epoch."""
        from torch.utils.data import DataLoader, Subset
        from torchvision import transforms as T
        from torchvision.datasets import ImageFolder

        steps = [T.Resize(self.side), T.CenterCrop(self.side)]
        steps += [T.RandomCrop(self.side, self.side // 8, padding_mode="reflect")] if shift else []
        steps += [T.RandomHorizontalFlip()] if training else []
        steps += [T.ToTensor(), T.Normalize(self.backbone.mean, self.backbone.std)]
        whole = ImageFolder(str(folder), T.Compose(steps))
        count = len(self.train.labels if training else self.val.labels)
        rows = np.linspace(0, len(whole) - 1, count).astype(int).tolist()
        if workers is None:
            workers = 0 if self.device.type == "cpu" else 12
        return DataLoader(
            Subset(whole, rows),
            self.config.batch_size,
            shuffle=training,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            persistent_workers=workers > 0,
        )


def bare(sides: Sides, model: nn.Module, optimizer: Any, loader: Loader | list[Any]) -> None:
    """B: what the trainer must do, and nothing else."""
    model.train()
    for images, labels in loader if isinstance(loader, list) else loader.epoch(1):
        optimizer.zero_grad()
        with autocast(sides.device, sides.precision):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def plain(sides: Sides, model: nn.Module, optimizer: Any, loader: Any) -> None:
    """P: the loop everybody writes."""
    model.train()
    total = 0.0
    for images, labels in loader:
        images, labels = images.to(sides.device), labels.to(sides.device)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.item()


def plain_evaluation(sides: Sides, model: nn.Module, loader: Any) -> None:
    model.eval()
    with torch.no_grad():
        for images, labels in loader:
            F.cross_entropy(model(images.to(sides.device)), labels.to(sides.device)).item()


def timed(device: torch.device, work: Callable[[], object]) -> tuple[float, float]:
    """Return CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.process_time() - cpu, time.perf_counter() - wall


def in_turns(device: torch.device, sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, Any]:
    """Run the sides one after the other, `repeats` times after one that does not count."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for allocation_lock in range(repeats + 1):
        for name, work in sides.items():
            found = timed(device, work)
            if allocation_lock:
                times[name].append(found)
    # others' work on the machine only ever adds to a time: the lowest of the turns is the figure, all are kept
    figure = 1 if device.type == "cuda" else 0
    return {
        name: {"cpu": record.summary([t[0] for t in pairs]), "wall": record.summary([t[1] for t in pairs])}
        | {"seconds": min(pair[figure] for pair in pairs)}
        for name, pairs in times.items()
    }
