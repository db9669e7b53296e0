"""Measure full learning curves on real sets, from which pruning rules and samplers are compared without training again.

    python benchmarks/search_curves.py SET DATA_FOLDER EPOCHS [SEED ...]

Sets: digits, fashion (a folder of Fashion-MNIST images), trashnet (a folder of photos); the latter two also as
fashion.large, with more images, and fashion.resnet18, at 64 px. With ".clean" behind it a study is augmented as runs
are now: not in its last epochs, nor in miniature; without it, as runs were before, in all epochs. For every seed a
subset of the images is drawn, and the 16 trials of a space-filling design are trained in full with the project's own
trainer, without any pruning. Kept per trial and epoch: validation loss on the raw weights, on a moving average of the
weights (half-life a quarter of an epoch), and with the batch's own statistics in place of the running ones; the first
and last of these also at fractions of the first epoch; and the last after runs in miniature of such fractions. With
many images "shared" is that after an eighth of an epoch that all trials of a study begin with the same weights and
order, on 128 validation images. One thread; the network is a narrow residual one: 16 trials of 9 epochs take 40 to 65
core-seconds, of 5 epochs on the large sets 130 to 210, with ResNet-18 900 to 1,900. A study that is in
results/search_curves.json is not measured again, but is given the runs in miniature that it lacks.
"""

from __future__ import annotations

import json
import math
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automl_pt.config import SearchConfig
from automl_pt.core.locks import locked
from automl_pt.core.seeds import derive_seed
from automl_pt.data.loader import Loader
from automl_pt.data.prepare import Pixels, prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.study.proxy_run import due_after
from automl_pt.study.pruning.rungs import SCHEDULES
from automl_pt.study.space.sampler import filling
from automl_pt.study.space.space import Space
from automl_pt.training.evaluation import evaluate
from automl_pt.training.layout import arrange
from automl_pt.training.loop import Training, train

RESULTS = Path(__file__).parent / "results" / "search_curves.json"
#: one study a line, named SET-SEED-EPOCHS
TRIALS = 16
FRACTIONS = {"1/6": 1 / 6, "1/4": 1 / 4, "1/3": 1 / 3, "1/2": 1 / 2, "2/3": 2 / 3}
IN_MINIATURE = {"1/8": 1 / 8, "1/6": 1 / 6, "1/4": 1 / 4, "3/8": 3 / 8, "1/2": 1 / 2, "7/8": 7 / 8}
#: side in pixels, training and validation images
SETS = {
    "digits": (8, 500, 300),
    "fashion": (20, 320, 200),
    "trashnet": (20, 320, 200),
    "fashion.large": (20, 1800, 360),
    "trashnet.large": (20, 1760, 328),
    "fashion.resnet18": (64, 600, 200),
    "trashnet.resnet18": (64, 600, 120),
    "fashion.large.resnet18": (64, 1800, 360),
    "trashnet.large.resnet18": (64, 1760, 328),
}
SPACES = {
    "narrow": Space((1e-4, 1.0), (8, 16, 32, 64, 128), ("narrow",)),
    "resnet18": Space((1e-4, 1.0), (8, 16, 32, 64), ("resnet18",)),
}
#: the end of a set's name
CLEAN = ".clean"
#: validation images by which a shared run in miniature is scored
SCORED = 128
CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
        self.short = nn.Conv2d(before, after, 1, stride, bias=False) if stride > 1 or before != after else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        inner = F.relu(self.norms[0](self.first(images)))
        return F.relu(self.norms[1](self.second(inner)) + self.short(images))


def network(name: str, classes: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    if name == "resnet18":
        from torchvision.models import resnet18

        return resnet18(num_classes=classes)
    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def subset(pixels: Pixels, count: int, seed: int) -> Pixels:
    rows = np.random.default_rng(seed).permutation(len(pixels.labels))[:count]  # mixed: classes side by side in a batch
    return Pixels(np.asarray(pixels.images)[rows], pixels.labels[rows], tuple(pixels.names[row] for row in rows))


def batch_statistics_loss(training: Training, images: int | None = None) -> float:
    """Evaluate with the statistics of each validation batch, leaving the running ones as they are.

    The first `images` only, where a number is given.
    """
    norms = [module for module in training.model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    training.model.train()
    for norm in norms:
        norm.momentum = 0.0
    sizes = training.val_loader.batch_sizes
    sizes = sizes if images is None else sizes[: math.ceil(images / sizes[0])]
    with torch.no_grad():
        losses = [
            F.cross_entropy(training.model(images), labels, reduction="sum")
            for images, labels in islice(training.val_loader.epoch(0), len(sizes))
        ]
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return float(sum(losses)) / sum(sizes)


def new_training(
    backbone: str, train_pixels: Pixels, val_pixels: Pixels, hints, params: dict, seed: int, epochs: int, **settings
) -> Training:
    """Ready a run; `augment` among the settings is what a run's `augment` is."""
    config = SearchConfig(
        dataset="subset", epochs=epochs, patience=epochs, device="cpu", precision="fp32", **settings
    ).trial(backbone=backbone, lr=params["lr"], batch_size=params["batch_size"], seed=seed)
    shared = {"mean": MEAN, "std": STD, "seed": seed, "device": CPU, "hints": hints, "channels_last": True}
    loaders = (
        Loader(
            train_pixels,
            batch_size=config.batch_size,
            augmented_epochs=config.augmented_epochs,
            shuffle=True,
            **shared,
        ),
        Loader(val_pixels, batch_size=64, augmented_epochs=0, shuffle=False, **shared),
    )
    model = arrange(network(backbone, int(train_pixels.labels.max()) + 1, seed), CPU, "fp32")
    return Training(model, *loaders, config, device=CPU, precision="fp32")


def miniatures(known: dict[str, float | None], *settings: Any, augment: str) -> dict[str, float | None]:
    """Run in miniature for fractions of an epoch not yet `known`; return all losses with batch statistics after it."""
    missing = [name for name in IN_MINIATURE if name not in known]
    return {**known, **{name: _in_miniature(IN_MINIATURE[name], *settings, augment=augment) for name in missing}}


def _in_miniature(part: float, *settings: Any, augment: str, images: int | None = None) -> float | None:
    training = new_training(*settings, augment="none" if augment == "early" else augment)
    due = training.steps_in_miniature = due_after(part, len(training.train_loader.batch_sizes))
    training.train_epoch(lambda done, _: done >= due, lambda: None)
    return _rounded(batch_statistics_loss(training, images))


def curve(
    backbone: str,
    train_pixels: Pixels,
    val_pixels: Pixels,
    hints,
    params: dict,
    seed: int,
    epochs: int,
    *,
    augment: str,
) -> dict:
    steps = math.ceil(len(train_pixels.labels) / params["batch_size"])
    settings = (backbone, train_pixels, val_pixels, hints, params, seed, epochs)
    training = new_training(*settings, ema_decay=0.5 ** (4 / steps), augment=augment)
    probes: dict[str, float] = {}
    batch_probes: dict[str, float] = {}

    def after_step(done: int, batches: int) -> bool:
        due = [name for name, part in FRACTIONS.items() if due_after(part, batches) == done]
        if training.progress.epochs_done == 0 and due:
            plain = evaluate(training.model, training.val_loader, device=CPU).loss
            probes.update(dict.fromkeys(due, plain))
            batch_probes.update(dict.fromkeys(due, batch_statistics_loss(training)))
            training.model.train()
        return False

    raw, ema, batch, accuracy = [], [], [], []
    for result in train(training, after_step=after_step):
        raw.append(result.val_loss)
        ema.append(result.ema_val_loss)
        accuracy.append(result.val_accuracy)
        batch.append(batch_statistics_loss(training))
    kept = {"raw": raw, "ema": ema, "batch": batch, "accuracy": accuracy}
    plain = {name: [_rounded(value) for value in values] for name, values in kept.items()}
    within = {
        name: {part: _rounded(value) for part, value in values.items()}
        for name, values in (("probes", probes), ("batch_probes", batch_probes))
    }
    return {"lr": params["lr"], "batch_size": params["batch_size"], **plain, **within}


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def main() -> None:
    name, folder, epochs, *seeds = sys.argv[1:]
    torch.set_num_threads(1)
    side, train_images, val_images = SETS[name.removesuffix(CLEAN)]
    augment = "early" if name.endswith(CLEAN) else "always"
    backbone = "resnet18" if "resnet18" in name else "narrow"
    space = SPACES[backbone]
    data = prepare(SearchConfig(dataset=folder, seed=1), load_plugins())
    pixels = {split: data.pixels(split, side) for split in ("train", "val")}
    for seed in [int(seed) for seed in seeds] or [1, 2, 3]:
        began = time.process_time()
        parts = (subset(pixels["train"], train_images, seed), subset(pixels["val"], val_images, seed))
        key = f"{name}-{seed}-{epochs}"
        found = kept().get(key, {"images": [len(part.labels) for part in parts], "trials": []})
        for number in range(TRIALS):
            params = space.default() if number == 0 else space.at(filling(seed, number, 3))
            settings = (backbone, *parts, data.hints, params, derive_seed(seed, "trial", number), int(epochs))
            if number == len(found["trials"]):
                found["trials"].append(curve(*settings, augment=augment))
            trial = found["trials"][number]
            assert math.isclose(trial["lr"], params["lr"]), "the study was measured with another design"
            trial["miniatures"] = miniatures(trial.get("miniatures", {}), *settings, augment=augment)
            if train_images >= SCHEDULES[0].images and "shared" not in trial:
                same = (backbone, *parts, data.hints, params, seed, int(epochs))
                trial["shared"] = {"1/8": _in_miniature(1 / 8, *same, augment=augment, images=SCORED)}
        found["seconds"] = round((found.get("seconds") or 0) + time.process_time() - began, 1)
        RESULTS.parent.mkdir(exist_ok=True)
        with locked(RESULTS.with_name(".search_curves.lock")):
            keep(key, found)
        print(name, seed, epochs, f"{found['seconds']} CPU s", flush=True)


def kept() -> dict:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def keep(key: str, value: dict) -> None:
    results = kept()
    results[key] = value
    lines = ",\n".join(f"{json.dumps(one)}: {json.dumps(results[one])}" for one in sorted(results))
    RESULTS.write_text(f"{{{lines}}}\n")


if __name__ == "__main__":
    main()
