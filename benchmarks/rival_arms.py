"""The arms of `rivals.py`: each trains or searches once, and returns a finished model."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import search_rivals

TRAINED = ("sgd", "adamw", "schedule-free-adamw", "prodigy")
SEARCHED: dict[str, dict[str, Any]] = {
    "search": {},
    "search-rivals": {"rivals": ("adamw", "schedule-free-adamw")},
    "search-optimizers": {"search": ["optimizer=sgd,adamw,schedule-free-adamw"]},
    "search-full": {"pruner": "none"},
    "search-median": {"pruner": "median"},
    "search-halving": {"pruner": "successive-halving"},
    "search-hyperband": {"pruner": "hyperband"},
    "random-two": {"pruner": "none", "sampler": "random", "trials": 3},
}
ARMS = (*TRAINED, "lr-find", "sgd-grid", *SEARCHED, "optuna")
DEFAULT_ARMS = (*TRAINED, "lr-find", "sgd-grid", "search", "search-rivals", "optuna")
GRID = {False: (0.001, 0.003, 0.01, 0.03, 0.1, 0.3), True: (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)}
#: rates for Optuna, from random weights and from given ones: those that our search has
RATES = {False: (1e-4, 1.0), True: (3e-4, 3e-2)}
PLUGIN = str(Path(__file__).with_name("prodigy_optimizer.py"))


@dataclass(frozen=True)
class Finished:
    """A finished model: its validation loss, its shares for a folder of classes, and what else is to be recorded."""

    val_loss: float
    shares: Callable[[Path], Any]
    more: dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What an arm is given: a folder of splits, an empty folder for its own files, and the settings."""

    folder: Path
    place: Path
    backbone: str
    weights: Path | None
    epochs: int
    trials: int
    side: int
    seed: int
    settings: dict[str, str]

    def shared(self) -> dict[str, Any]:
        """Return the settings of `train` and `search` that all arms have."""
        start = {"weights": str(self.weights)} if self.weights else {"pretrained": False}
        how = {"epochs": self.epochs, "seed": self.seed, "image_size": self.side, "plugins": [PLUGIN]}
        return {**how, **start, "threads": 1, "device": "cpu", **self.settings}

    def network(self, classes: int) -> Any:
        """Return the network of a plain loop; one with given weights keeps its batch-norm statistics."""
        import torch
        from safetensors.torch import load_file
        from torchvision import models
        from transfer import _network

        if self.weights is None:
            return models.get_model(self.backbone, num_classes=classes)
        network = _network(self.backbone.removeprefix("timm/"), load_file(self.weights), classes, zeros=True)

        class Kept(torch.nn.Sequential):
            def train(self, mode: bool = True) -> Any:
                super().train(mode)
                for module in self.modules():
                    if isinstance(module, torch.nn.BatchNorm2d):
                        module.eval()
                return self

        return Kept(network)

    def channels(self) -> search_rivals.Channels:
        """Return the mean and deviation of the channels that the network's weights were trained with."""
        import timm

        if self.weights is None:
            return search_rivals.IMAGENET
        config: Any = timm.get_pretrained_cfg(self.backbone.removeprefix("timm/"))
        return config.mean, config.std


def train_arm(case: Case, name: str = "run", **settings: Any) -> Finished:
    """Train once by `automl-pt train`."""
    import automl_pt

    output = case.place / name
    list(automl_pt.train(str(case.folder), backbone=case.backbone, output=output, **{**case.shared(), **settings}))
    return _ours(output)


def grid_arm(case: Case) -> Finished:
    """Train at each rate of the grid, and take the lowest validation loss."""
    runs = {lr: train_arm(case, f"run-{lr}", lr=lr) for lr in GRID[case.weights is not None]}
    best = min(runs, key=lambda lr: runs[lr].val_loss)
    losses = {str(lr): round(run.val_loss, 4) for lr, run in runs.items()}
    return Finished(runs[best].val_loss, runs[best].shares, {"lr": best, "val_losses": losses})


def lr_find_arm(case: Case) -> Finished:
    """Find the rate of the documented SGD by a range test, and train at it."""
    import torch

    torch.set_num_threads(1)
    lr = valley(*range_test(case))
    found = train_arm(case, lr=lr)
    return Finished(found.val_loss, found.shares, {"lr": lr})


def range_test(case: Case, steps: int = 100, low: float = 1e-7, high: float = 10.0) -> tuple[list[float], list[float]]:
    """Return rates that grow geometrically with each step, and the smoothed losses, as fastai's `Learner.lr_find`.

    The losses are a moving average of .98, corrected at its start. The test ends when they are four times the best.
    """
    import torch
    from torch.nn import functional as F
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    torch.manual_seed(case.seed)
    way = [transforms.Resize(case.side), transforms.CenterCrop(case.side), transforms.ToTensor()]
    normalised = transforms.Compose([*way, transforms.Normalize(*case.channels())])
    images = datasets.ImageFolder(case.folder / "train", normalised)
    network = case.network(len(images.classes)).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=low, momentum=0.9, nesterov=True, weight_decay=1e-4)
    rates, losses, mean = list[float](), list[float](), 0.0
    while len(rates) < steps:
        for batch, labels in DataLoader(images, search_rivals.BATCH, shuffle=True, drop_last=True):
            rates.append(low * (high / low) ** (len(rates) / (steps - 1)))
            optimizer.param_groups[0]["lr"] = rates[-1]
            optimizer.zero_grad()
            loss = F.cross_entropy(network(batch), labels)
            loss.backward()
            optimizer.step()
            mean = 0.98 * mean + 0.02 * loss.item()
            losses.append(mean / (1 - 0.98 ** len(rates)))
            if not math.isfinite(losses[-1]) or losses[-1] > 4 * min(losses) or len(rates) == steps:
                return rates, losses
    return rates, losses


def valley(rates: list[float], losses: list[float]) -> float:
    """Return the rate half-way through the second third of the longest run of falling losses, as fastai suggests."""
    lengths, ends_at = [1] * len(losses), 0
    for here in range(1, len(losses)):
        lengths[here] = max([lengths[before] + 1 for before in range(here) if losses[here] < losses[before]], default=1)
        ends_at = here if lengths[here] > lengths[ends_at] else ends_at
    starts_at = ends_at - lengths[ends_at]
    third = (ends_at - starts_at) / 3
    return rates[max(0, starts_at) + int(third) + int(third / 2)]


def search_arm(case: Case, **settings: Any) -> Finished:
    """Search, and take the finished model; what the search says it gained is recorded with it."""
    from automl_pt.api.search import run_search
    from automl_pt.config import SearchConfig, make

    given = {"dataset": str(case.folder), "backbones": (case.backbone,), "trials": case.trials, "workers": 0}
    config = make(SearchConfig, {**given, "report": False, **case.shared(), **settings})
    result = run_search(config, case.place / "study")
    finished = _ours(case.place / "study" / "model")
    trials = {
        str(trial.number): [trial.unsearched, trial.params.get("lr"), trial.params.get("batch_size"), trial.value]
        for trial in result.trials
    }
    best = result.best
    return Finished(finished.val_loss, finished.shares, {"best": best.number if best else None, "trials": trials})


def optuna_arm(case: Case) -> Finished:
    """Let Optuna search, and take the network of its best epoch."""
    import torch

    kept: dict[str, Any] = {"loss": math.inf}

    def keep(loss: float, network: Any) -> None:
        if loss < kept["loss"]:
            kept.update(loss=loss, network=copy.deepcopy(network))

    run = {"side": case.side, "make_network": case.network, "channels": case.channels(), "keep": keep}
    rates = RATES[case.weights is not None]
    search_rivals.run_optuna(case.folder, case.epochs, case.trials, case.seed, rates, **run)

    def shares(folder: Path) -> Any:
        from torchvision import datasets, transforms

        way = [transforms.Resize(case.side), transforms.CenterCrop(case.side), transforms.ToTensor()]
        normalised = transforms.Compose([*way, transforms.Normalize(*case.channels())])
        images = datasets.ImageFolder(folder, normalised)
        kept["network"].eval()
        with torch.inference_mode():
            return torch.cat([kept["network"](image[None]).softmax(1) for image, _ in images]).numpy()

    return Finished(kept["loss"], shares, {})


def _ours(model: Path) -> Finished:
    import automl_pt

    loaded = automl_pt.load_model(model)

    def shares(folder: Path) -> Any:
        return loaded.predict([file for name in loaded.classes for file in sorted((folder / name).iterdir())])

    return Finished(loaded.info.metrics["val_loss"], shares, {})


def run_arm(arm: str, case: Case) -> Finished:
    if arm in SEARCHED:
        return search_arm(case, **SEARCHED[arm])
    if arm in TRAINED:
        return train_arm(case, optimizer=arm)
    return {"sgd-grid": grid_arm, "lr-find": lr_find_arm, "optuna": optuna_arm}[arm](case)


def measured(finished: Finished, folder: Path) -> dict[str, Any]:
    """Return accuracy, loss and each answer (1 is right) on the test split, and the kept epoch's validation loss."""
    import numpy as np

    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    labels = np.array([label for label, path in enumerate(classes) for _ in path.iterdir()])
    shares = finished.shares(folder)
    losses = -np.log(np.clip(shares[np.arange(len(labels)), labels], 1e-12, 1))
    right = shares.argmax(1) == labels
    figures = {"test_accuracy": right.mean(), "test_loss": losses.mean(), "val_loss": finished.val_loss}
    answers = "".join(str(int(one)) for one in right)
    return {**{name: round(float(value), 4) for name, value in figures.items()}, **finished.more, "right": answers}
