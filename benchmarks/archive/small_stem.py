"""Does the stem for images below 64 px help? The same runs with it and with the stem for 224 px, seed by seed.

Three seeds, the sides interleaved; all runs have the same number of epochs, images and steps. CPU time was taken
with one thread, on a machine that others used too. Digits are also trained at twice their native side, which the
dataset's hint of 8 px is measured against.

    python benchmarks/archive/small_stem.py DATA        # DATA holds fashion_mnist_small/ with {train,val}/CLASS/
    python benchmarks/archive/small_stem.py DATA --photos 32 48       # and trashnet/: photographs at the sides named
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import record
import torch

from automl_pt.backbone import Backbone
from automl_pt.backbones.build import build_model
from automl_pt.config import TrainConfig
from automl_pt.data.loader import Loader
from automl_pt.data.prepare import Data, Pixels, prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.training.loop import Training, train

TRAIN_IMAGES, EPOCHS, BATCH_SIZE = 600, 3, 16
RATES, SEEDS = (0.01,), (1, 2, 3)
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, nargs="+", metavar="SIDE")
    arguments = parser.parse_args()
    fashion, photos = str(arguments.data / "fashion_mnist_small"), str(arguments.data / "trashnet")
    torch.set_num_threads(1)
    plugins = load_plugins()
    # DenseNets are not among them: with their own stem they take no images below 29 px at all
    cases, seeds = [("digits", 8, "resnet18"), ("digits", 16, "resnet18"), (fashion, 28, "resnet18")], SEEDS
    if arguments.photos:
        cases, seeds = [(photos, side, "resnet18") for side in arguments.photos], SEEDS[:2]
    result = "small_stem_photos" if arguments.photos else "small_stem"
    runs: list[dict[str, Any]] = []
    for dataset, size, name in cases:
        data = prepare(TrainConfig(dataset=dataset, image_size=size), plugins)
        for seed in seeds:
            for rate in RATES:
                for stem, backbone in stems(plugins.backbone(name)).items():
                    case = {"dataset": Path(dataset).name, "size": size, "backbone": name, "stem": stem}
                    runs.append({**case, "seed": seed, "lr": rate, **one_run(data, size, backbone, rate, seed)})
                    record.write(result, epochs=EPOCHS, train_images=TRAIN_IMAGES, table=table(runs), runs=runs)
        for row in table(runs):
            print(row, flush=True)


def stems(backbone: Backbone) -> dict[str, Backbone]:
    return {"small": backbone, "224 px": replace(backbone, adapt=None, min_image_size=None)}


def one_run(data: Data, size: int, backbone: Backbone, lr: float, seed: int) -> dict[str, Any]:
    config = TrainConfig(dataset="-", epochs=EPOCHS, batch_size=BATCH_SIZE, lr=lr, seed=seed, patience=EPOCHS)
    shared: dict[str, Any] = {
        "mean": backbone.mean,
        "std": backbone.std,
        "seed": seed,
        "device": CPU,
        "hints": data.hints,
    }
    train_loader = Loader(
        first(data.pixels("train", size)), batch_size=config.batch_size, augmented_epochs=99, shuffle=True, **shared
    )
    val_loader = Loader(data.pixels("val", size), batch_size=64, augmented_epochs=0, shuffle=False, **shared)
    model = build_model(backbone, len(data.manifest.classes), size, seed=seed)
    began = time.process_time()
    results = list(train(Training(model, train_loader, val_loader, config, device=CPU, precision="fp32")))
    best = min(results, key=lambda result: result.val_loss)
    return {
        "val_loss": best.val_loss,
        "val_accuracy": best.val_accuracy,
        "cpu_seconds_per_epoch": (time.process_time() - began) / len(results),
    }


def first(pixels: Pixels) -> Pixels:
    """Take at most TRAIN_IMAGES, spread evenly over the sorted names, so that every class keeps its share."""
    count = len(pixels.labels)
    chosen = np.unique(np.linspace(0, count - 1, min(count, TRAIN_IMAGES)).astype(int))
    return Pixels(pixels.images[chosen], pixels.labels[chosen], tuple(pixels.names[index] for index in chosen))


def table(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per case and stem: means over the seeds at the rate with the lower mean validation loss."""
    rows = []
    for case in dict.fromkeys((run["dataset"], run["size"], run["backbone"], run["stem"]) for run in runs):
        mine = [run for run in runs if (run["dataset"], run["size"], run["backbone"], run["stem"]) == case]
        by_rate = {rate: [run for run in mine if run["lr"] == rate] for rate in RATES}
        known = [found for found in by_rate.values() if found]
        best = min(known, key=lambda found: mean(run["val_loss"] for run in found))
        figures = ("lr", "val_loss", "val_accuracy", "cpu_seconds_per_epoch")
        means = {name: round(mean(run[name] for run in best), 4) for name in figures}
        rows.append(dict(zip(("dataset", "size", "backbone", "stem"), case, strict=True)) | means)
    return rows


if __name__ == "__main__":
    main()
