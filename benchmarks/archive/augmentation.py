"""What is cached, and how it is augmented: shifts and flips of images cached at the training side, against random
resized crops from images cached larger. The same budget for each, several seeds, validation at the training side.

    python benchmarks/archive/augmentation.py DATA        # a folder with {train,val}/CLASS/*
    python benchmarks/archive/augmentation.py DATA --arms 0 1 5 --side 32 --epochs 15  # is it worth it, and how long?
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import record
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from automl_pt.backbones.build import build_model
from automl_pt.config import TrainConfig
from automl_pt.data.augmentation import Plan
from automl_pt.data.loader import Loader
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.training.loop import Training, train

CPU = torch.device("cpu")
#: name: cached side as a multiple of the training side, smallest share of the area a crop keeps (None: shifts and
#: flips as the package does them)
ARMS: dict[str, tuple[float, float | None]] = {
    "none": (1, None),
    "shift + flip": (1, None),
    "crops of 35-100 %, cached at 1.5": (1.5, 0.35),
    "crops of 8-100 %, cached at 1.5": (1.5, 0.08),
    "crops of 35-100 %, cached at 2": (2, 0.35),
    "shift + flip early": (1, None),
}


class CropLoader(Loader):
    """Cuts a random part, of random shape, out of each image and resizes it; then mirrors every second one."""

    smallest, side = 0.35, 64

    def _gather(self, plan: Plan, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        crops = [self._crop(torch.from_numpy(self.images[int(index)].copy()), plan, int(index)) for index in indices]
        return torch.stack(crops), torch.from_numpy(self.labels[indices])

    def _crop(self, image: Tensor, plan: Plan, index: int) -> Tensor:
        # drawn from what the plan says of this image, which is another number in every epoch
        random = np.random.default_rng([self.seed, index, *(plan.shifts[index] + 100).tolist(), int(plan.order[index])])
        cached = image.shape[-1]
        area, ratio = random.uniform(self.smallest, 1) * cached**2, np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        height, width = (min(cached, round(float(side))) for side in ((area / ratio) ** 0.5, (area * ratio) ** 0.5))
        top, left = random.integers(0, cached - height + 1), random.integers(0, cached - width + 1)
        part = image[None, :, top : top + height, left : left + width]
        result = interpolate(part, (self.side, self.side), mode="bilinear", antialias=True)[0]
        return result.flip(-1) if plan.flips[index] else result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", default="timm/test_resnet")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", type=int, nargs="+", default=range(len(ARMS)))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs: list[dict[str, Any]] = []
    # seeds outside, arms inside: a change of the machine's load meets all arms
    for seed in range(1, arguments.seeds + 1):
        for arm in [list(ARMS)[index] for index in arguments.arms]:
            runs.append({"arm": arm, "seed": seed, **one_run(arguments, arm, seed)})
            print(runs[-1], flush=True)
            parts = (arguments.backbone.rpartition("/")[2], arguments.data.name, arguments.side, arguments.epochs)
            name = "-".join(map(str, ("augmentation", *parts)))
            record.write(name, data=arguments.data.name, side=arguments.side, settings=settings(arguments), runs=runs)
    table(runs)


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"backbone": arguments.backbone, "epochs": arguments.epochs, "lr": arguments.lr, "batch_size": 32}


def one_run(arguments: argparse.Namespace, arm: str, seed: int) -> dict[str, Any]:
    factor, smallest = ARMS[arm]
    side, cached = arguments.side, int(factor * arguments.side)
    plugins = load_plugins()
    config = TrainConfig(
        dataset=str(arguments.data), image_size=side, seed=seed, patience=arguments.epochs, **settings(arguments)
    )
    data, backbone = prepare(config, plugins), plugins.backbone(config.backbone)
    shared: dict[str, Any] = {
        "mean": backbone.mean,
        "std": backbone.std,
        "seed": seed,
        "device": CPU,
        "hints": data.hints,
    }
    augmented = 0 if arm == "none" else config.augmented_epochs if "early" in arm else config.epochs
    kind = Loader if smallest is None else CropLoader
    loader = kind(data.pixels("train", cached), batch_size=32, augmented_epochs=augmented, shuffle=True, **shared)
    if isinstance(loader, CropLoader) and smallest is not None:
        loader.smallest, loader.side = smallest, side
    val = Loader(data.pixels("val", side), batch_size=64, augmented_epochs=0, shuffle=False, **shared)
    model = build_model(backbone, len(data.manifest.classes), side, seed=seed)
    began = time.process_time()
    results = list(train(Training(model, loader, val, config, device=CPU, precision="fp32")))
    best = min(results, key=lambda result: result.val_loss)
    return {
        "val_loss": best.val_loss,
        "val_accuracy": best.val_accuracy,
        "train_loss": results[-1].train_loss,
        "data_seconds": loader.wait_seconds,
        "cpu_seconds": time.process_time() - began,
        "cache_bytes_per_image": 3 * cached * cached,
    }


def table(runs: list[dict[str, Any]]) -> None:
    for arm in dict.fromkeys(run["arm"] for run in runs):
        mine = [run for run in runs if run["arm"] == arm]
        losses = [run["val_loss"] for run in mine]
        accuracy, size = mean(run["val_accuracy"] for run in mine), mine[0]["cache_bytes_per_image"] / 1024
        print(
            f"{arm:34} val loss {mean(losses):.3f} ({min(losses):.3f} to {max(losses):.3f}), "
            f"accuracy {accuracy:.3f}, {size:.0f} KiB an image"
        )


if __name__ == "__main__":
    main()
