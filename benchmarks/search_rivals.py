"""A search of ours against one plain run (P), and against Optuna with its defaults driving the same plain run (O).

    python benchmarks/search_rivals.py FOLDER [FOLDER ...] [--epochs 5] [--trials 16] [--seeds 1] [--images 0]
           [--sides P O ours]

FOLDER holds {train,val}/CLASS/*. All sides train ResNet-18 at 64 px from scratch with one thread, on the same images:
P and O with torchvision's ImageFolder, a DataLoader and an eager float32 loop of SGD; O asks TPE, reports each
epoch's validation loss, prunes by the median and keeps its study in SQLite. Ours is the whole `automl-pt search`,
cache, final model and figures included, from an empty cache. Every side runs in a process of its own, so that imports
count, too. `--images N` takes the first N training images of each class, and N / 5 to validate on. CPU and wall
seconds. A cell (set, seed, side) that is in results/search_rivals.json is not run again: a run that was cut goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record

RESULTS = record.RESULTS / "search_rivals.json"
SIDE, BATCH, LR = 64, 16, 0.001
SIDES = ("P", "O", "ours")
#: mean and deviation of the channels of a network's images
Channels = tuple[tuple[float, ...], tuple[float, ...]]
IMAGENET: Channels = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def plain_run(
    folder: Path,
    epochs: int,
    seed: int,
    lr: float = LR,
    batch_size: int = BATCH,
    trial: Any = None,
    *,
    side: int = SIDE,
    device: str = "cpu",
    processes: int = 0,
    make_network: Callable[[int], Any] | None = None,
    channels: Channels = IMAGENET,
    keep: Callable[[float, Any], None] = lambda loss, network: None,
) -> float:
    """Train as one would by hand; return the lowest validation loss. With an Optuna trial, report and prune.

    `processes` read the images beside this one. `make_network` is given the number of classes and returns another
    network than ResNet-18 from random weights, `channels` are the mean and deviation of its images. `keep` is called
    with the loss and the network after every epoch.
    """
    import optuna
    import torch
    from torch.nn import functional as F
    from torch.utils.data import DataLoader
    from torchvision import datasets, models, transforms

    if device == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(seed)
    common = [transforms.ToTensor(), transforms.Normalize(*channels)]
    ways = {
        "train": [transforms.RandomResizedCrop(side, (0.5, 1.0)), transforms.RandomHorizontalFlip()],
        "val": [transforms.Resize(side), transforms.CenterCrop(side)],
    }
    sets = {
        name: datasets.ImageFolder(folder / name, transforms.Compose([*way, *common])) for name, way in ways.items()
    }
    ways_to_load: dict[str, Any] = {"num_workers": processes, "persistent_workers": processes > 0}
    loaders = {
        name: DataLoader(found, batch_size, shuffle=name == "train", pin_memory=device != "cpu", **ways_to_load)
        for name, found in sets.items()
    }
    classes = len(sets["train"].classes)
    model = (make_network(classes) if make_network else models.resnet18(num_classes=classes)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loaders["train"]))
    best = float("inf")
    for epoch in range(1, epochs + 1):
        model.train()
        for images, labels in loaders["train"]:
            if len(labels) < 2:
                continue
            optimizer.zero_grad()
            F.cross_entropy(model(images.to(device)), labels.to(device)).backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.inference_mode():
            total = sum(
                F.cross_entropy(model(images.to(device)), labels.to(device), reduction="sum").item()
                for images, labels in loaders["val"]
            )
        loss = total / len(sets["val"])
        best = min(best, loss)
        keep(loss, model)
        if trial is not None:
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
    return best


def run_optuna(
    folder: Path, epochs: int, trials: int, seed: int, rates: tuple[float, float] = (1e-4, 1.0), **settings: Any
) -> float:
    """Search with Optuna's defaults; return the lowest loss. `settings` are further ones of `plain_run`."""
    import optuna

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", *rates, log=True)
        size = trial.suggest_categorical("batch_size", [8, 16, 32, 64, 128, 256])
        return plain_run(folder, epochs, seed, lr, size, trial, **settings)

    with tempfile.TemporaryDirectory() as place:
        sampler = optuna.samplers.TPESampler(seed=seed)
        study = optuna.create_study(storage=f"sqlite:///{place}/study.db", sampler=sampler)
        study.optimize(objective, n_trials=trials)
        return study.best_value


def run_ours(folder: Path, epochs: int, trials: int, seed: int) -> float:
    from automl_pt.api.search import run_search
    from automl_pt.config import SearchConfig

    with tempfile.TemporaryDirectory() as place:
        os.environ["AUTOML_PT_CACHE"] = f"{place}/cache"
        settings = {"backbones": ("resnet18",), "pretrained": False, "image_size": SIDE}
        settings |= {"workers": 0, "threads": 1, "device": "cpu"}
        config = SearchConfig(dataset=str(folder), epochs=epochs, trials=trials, seed=seed, **settings)
        best = run_search(config, Path(place, "study")).best
        assert best is not None
        assert best.value is not None
        return best.value


def subset(folder: Path, images: int, place: Path) -> Path:
    """Link the first `images` training images of each class, and a fifth as many to validate on, into `place`."""
    for split, count in (("train", images), ("val", images // 5)):
        for path in sorted((folder / split).iterdir()):
            (place / split / path.name).mkdir(parents=True)
            for image in sorted(path.iterdir())[: count or None]:
                os.link(image, place / split / path.name / image.name)
    return place


def cell(side: str, folder: Path, epochs: int, trials: int, seed: int) -> dict[str, Any]:
    """Run one side in this process; count its CPU seconds, those of its children too."""
    began = time.monotonic()
    if side == "P":
        loss = plain_run(folder, epochs, seed)
    else:
        loss = (run_optuna if side == "O" else run_ours)(folder, epochs, trials, seed)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in usage)
    return {"cpu_seconds": round(cpu, 1), "seconds": round(time.monotonic() - began, 1), "val_loss": round(loss, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    for name, default in (("epochs", 5), ("trials", 16), ("images", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--sides", choices=SIDES, nargs="+", default=list(SIDES), help="which to run")
    parser.add_argument("--side", choices=SIDES, help="run this one in this process, for the script's own use")
    given = parser.parse_args()
    if given.side:
        print(json.dumps(cell(given.side, given.folders[0], given.epochs, given.trials, given.seeds[0])))
        return
    cells = json.loads(RESULTS.read_text())["cells"] if RESULTS.exists() else {}
    for seed in given.seeds:
        for folder in given.folders:
            with tempfile.TemporaryDirectory(dir=folder.resolve().parent) as place:
                data = subset(folder, given.images, Path(place))
                size = f"{given.images or 'all'} images a class"
                base = f"{folder.name} {size}, {given.epochs} epochs, {given.trials} trials"
                for side in given.sides:
                    key = f"{base}, seed {seed}, {side}"
                    if key in cells:
                        continue
                    options = [
                        f"--epochs={given.epochs}",
                        f"--trials={given.trials}",
                        f"--seeds={seed}",
                        f"--side={side}",
                    ]
                    done = subprocess.run(
                        [sys.executable, __file__, str(data), *options], capture_output=True, text=True, check=True
                    )
                    load = round(os.getloadavg()[0], 1)
                    cells[key] = {**json.loads(done.stdout.splitlines()[-1]), "load": load}
                    record.write("search_rivals", cells=cells)
                    print(key, cells[key], flush=True)


if __name__ == "__main__":
    main()
