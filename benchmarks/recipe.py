"""Which schedule, and which other settings, end at the lowest validation loss: three sets, equal budgets.

Each schedule is tried at four learning rates; its best rate per set is repeated with two more seeds. Each other setting
is then changed alone, on top of the best schedule at its best rate, and compared seed by seed.

    python benchmarks/recipe.py DATA        # DATA holds trashnet/ and fashion_mnist_small/ with {train,val}/CLASS/
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import record
import torch

from automl_pt.backbones.build import build_model
from automl_pt.config import TrainConfig
from automl_pt.data.loader import Loader
from automl_pt.data.prepare import Data, Pixels, prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.training.loop import Training, train

BACKBONE, EPOCHS, TRAIN_IMAGES = "timm/test_resnet", 6, 1200
RATES = (0.001, 0.01, 0.03, 0.1)
SCHEDULES = ("constant", "step", "polynomial", "cosine")
SEEDS = (1, 2, 3)
OTHERS: dict[str, dict[str, Any]] = {
    "warmup_epochs=1": {"warmup_epochs": 1},
    "label_smoothing=0.1": {"label_smoothing": 0.1},
    "clip_grad_norm=1": {"clip_grad_norm": 1.0},
    "class_weights=balanced": {"class_weights": "balanced"},
    "ema_decay=0.99": {"ema_decay": 0.99},
    "weight_decay=5e-4": {"weight_decay": 5e-4},
    "augment=always": {"augment": "always"},
    "augment=none": {"augment": "none"},
}
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data
    torch.set_num_threads(1)
    plugins, runs, began = load_plugins(), [], time.process_time()
    sets = {"digits": 8, str(folder / "fashion_mnist_small"): 32, str(folder / "trashnet"): 32}
    loaded = {Path(name).name: (prepare(TrainConfig(dataset=name), plugins), size) for name, size in sets.items()}

    def run(dataset: str, seed: int, **settings: Any) -> dict[str, Any]:
        data, size = loaded[dataset]
        found = one_run(data, size, plugins, TrainConfig(dataset=dataset, epochs=EPOCHS, seed=seed, **settings))
        runs.append({"dataset": dataset, "seed": seed, **settings, **found})
        print(runs[-1], flush=True)
        record.write("recipe", backbone=BACKBONE, epochs=EPOCHS, cpu_seconds=time.process_time() - began, runs=runs)
        return runs[-1]

    best = {}
    for dataset in loaded:
        for schedule in SCHEDULES:
            tried = [run(dataset, 1, schedule=schedule, lr=rate) for rate in RATES]
            rate = best[dataset, schedule] = min(tried, key=lambda entry: entry["val_loss"])["lr"]
            for seed in SEEDS[1:]:
                run(dataset, seed, schedule=schedule, lr=rate)
    winner = min(SCHEDULES, key=lambda name: mean(_relative(runs, dataset, name, best) for dataset in loaded))
    for settings in OTHERS.values():
        for dataset in loaded:
            for seed in SEEDS[:2]:
                run(dataset, seed, schedule=winner, lr=best[dataset, winner], **settings)


def one_run(data: Data, size: int, plugins: Any, config: TrainConfig) -> dict[str, Any]:
    """Train once in memory; return the lowest validation loss and the accuracy of that epoch."""
    backbone = plugins.backbone(BACKBONE)
    shared: dict[str, Any] = {
        "mean": backbone.mean,
        "std": backbone.std,
        "seed": config.seed,
        "device": CPU,
        "hints": data.hints,
    }
    train_loader = Loader(
        _first(data.pixels("train", size)),
        batch_size=config.batch_size,
        augmented_epochs=config.augmented_epochs,
        shuffle=True,
        **shared,
    )
    val_loader = Loader(data.pixels("val", size), batch_size=64, augmented_epochs=0, shuffle=False, **shared)
    model = build_model(backbone, len(data.manifest.classes), size, seed=config.seed)
    results = list(train(Training(model, train_loader, val_loader, config, device=CPU, precision="fp32")))
    figures = [(r.val_loss, r.val_accuracy) for r in results]
    figures += [(r.ema_val_loss, r.ema_val_accuracy) for r in results if r.ema_val_loss is not None]
    loss, accuracy = min((pair for pair in figures if math.isfinite(pair[0])), default=(math.inf, 0.0))
    return {"val_loss": loss, "val_accuracy": accuracy, "epochs": len(results), "last_val_loss": results[-1].val_loss}


def _first(pixels: Pixels) -> Pixels:
    """Take at most TRAIN_IMAGES, spread evenly over the sorted names, so that every class keeps its share."""
    count = len(pixels.labels)
    chosen = np.unique(np.linspace(0, count - 1, min(count, TRAIN_IMAGES)).astype(int))
    return Pixels(pixels.images[chosen], pixels.labels[chosen], tuple(pixels.names[index] for index in chosen))


def _relative(runs: list[dict[str, Any]], dataset: str, schedule: str, best: dict[Any, float]) -> float:
    """Return a schedule's mean loss over the seeds at its best rate, as a multiple of the best schedule's."""
    means = {
        name: mean(
            entry["val_loss"]
            for entry in runs
            if (entry["dataset"], entry["schedule"], entry["lr"]) == (dataset, name, best[dataset, name])
        )
        for name in SCHEDULES
    }
    return means[schedule] / min(means.values())


if __name__ == "__main__":
    main()
