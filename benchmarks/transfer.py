"""Trainings that start from pretrained weights: ours against what people write by hand, on any folder of photographs.

    python benchmarks/transfer.py FOLDER --weights FILE [--arms plain plain:lr=0.003 train] [--backbone NAME]
           [--size 96] [--seeds 1 2] [--images 600] [--epochs 5] [--results transfer]

FOLDER holds {train,val,test}/CLASS/*, FILE the backbone's weights, which it may have itself. An arm is a name of
`ARMS`, with settings for it after a colon. `plain` is a loop as one writes it by hand: torchvision's images, decoded
once; timm's network with a head of zeros, its batch-norm statistics kept; SGD, batches of 16, cosine; shifts and
mirror images in all but the last three epochs; float32; the epoch with the lowest validation loss. `train` is `automl-
pt train` from an empty cache. `search` is `automl-pt search` with 16 trials, `search:pruner=none` the same trials all
in full. `logistic` is scikit-learn's logistic regression on the frozen features, C by the validation loss. `first-
model` is `automl-pt search` until its linear probe is finished, `pass` one pass of the frozen network over the images.
Each arm runs in a process of its own, with one thread a process, the arms in turns for each seed. CPU seconds count
imports, decoding and the finished model, but not the measuring on the test split. `--images N` takes N training
images, each class by its share. `--results NAME` keeps the cells in results/NAME.json. A cell that is there is not run
again: a benchmark that was cut goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import record

BATCH, LR, CLEAN_EPOCHS = 16, 0.001, 3


@dataclass(frozen=True)
class Case:
    """What an arm is given: a folder of splits, a backbone of ours with its weights, side, epochs, seed, settings."""

    folder: Path
    backbone: str
    weights: Path | None
    size: int
    epochs: int
    seed: int
    settings: dict[str, Any]

    @property
    def given(self) -> dict[str, str]:
        """Return the file of weights as a setting of ours; none where the backbone has its own."""
        return {} if self.weights is None else {"weights": str(self.weights.resolve())}


#: validation loss of the finished model, and what measures its accuracy on the test split
Outcome = tuple[float, Callable[[], float]]


def plain(case: Case) -> Outcome:
    """Fine-tune by hand; `lr`, `batch_norm` (keep or train) and `head` (zeros or own) may be set."""
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional as F

    torch.set_num_threads(1)
    network, wishes = case.backbone.removeprefix("timm/"), case.settings
    images, classes, channels = _decoded(case, network)
    torch.manual_seed(case.seed)
    model = _network(network, load_file(str(case.weights)), classes, zeros=wishes.get("head", "zeros") == "zeros")
    optimizer = torch.optim.SGD(
        model.parameters(), lr=float(wishes.get("lr", LR)), momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    batches = -(-len(images["train"][1]) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, case.epochs * batches)
    best, kept = float("inf"), copy.deepcopy(model)
    for epoch in range(case.epochs):
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d) and wishes.get("batch_norm", "keep") == "keep":
                module.eval()
        for chosen in torch.randperm(len(images["train"][1])).split(BATCH):
            batch = images["train"][0][chosen]
            if epoch < case.epochs - CLEAN_EPOCHS:
                batch = _augmented(batch)
            optimizer.zero_grad()
            F.cross_entropy(model(channels(batch)), images["train"][1][chosen]).backward()
            optimizer.step()
            schedule.step()
        loss = F.cross_entropy(_logits(model, channels, images["val"][0]), images["val"][1]).item()
        if loss < best:
            best, kept = loss, copy.deepcopy(model)
    return best, lambda: _accuracy(_logits(kept, channels, images["test"][0]), images["test"][1])


def _decoded(case: Case, network: str) -> tuple[dict[str, Any], int, Callable[[Any], Any]]:
    """Return each split's images uint8[N, 3, S, S] and labels, the number of classes, and what normalises a batch."""
    import timm
    import torch
    from torchvision import datasets, transforms

    way = transforms.Compose([transforms.Resize(case.size), transforms.CenterCrop(case.size), transforms.PILToTensor()])
    found = {split: datasets.ImageFolder(case.folder / split, way) for split in ("train", "val", "test")}
    images = {
        split: (torch.stack([image for image, _ in one]), torch.tensor(one.targets)) for split, one in found.items()
    }
    config = timm.get_pretrained_cfg(network)
    mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    return images, len(found["train"].classes), lambda batch: (batch / 255 - mean) / std


def _network(name: str, tensors: dict[str, Any], classes: int, *, zeros: bool) -> Any:
    import timm

    model = timm.create_model(name, num_classes=classes)
    head = model.get_classifier()
    own = {id(parameter) for parameter in head.parameters()}
    heads = {key for key, parameter in model.named_parameters() if id(parameter) in own}
    model.load_state_dict({key: value for key, value in tensors.items() if key not in heads}, strict=False)
    if zeros:
        for parameter in head.parameters():
            parameter.data.zero_()
    return model


def _augmented(batch: Any) -> Any:
    import torch
    from torchvision.transforms import RandomCrop, RandomHorizontalFlip

    side, flip = batch.shape[-1], RandomHorizontalFlip()
    crop = RandomCrop(side, padding=side // 8, padding_mode="reflect")
    return torch.stack([flip(crop(image)) for image in batch])


def _logits(model: Any, channels: Callable[[Any], Any], images: Any) -> Any:
    import torch

    model.eval()
    with torch.inference_mode():
        return torch.cat([model(channels(part)) for part in images.split(64)])


def _accuracy(logits: Any, labels: Any) -> float:
    return float((logits.argmax(1) == labels).double().mean())


def train(case: Case) -> Outcome:
    """Run `automl-pt train` with its defaults; any of its settings may be set."""
    from automl_pt.model.evaluate import evaluate
    from automl_pt.plugins.manager import load_plugins
    from automl_pt.runs import run

    place = tempfile.mkdtemp(prefix="transfer-")
    os.environ["AUTOML_PT_CACHE"] = f"{place}/cache"
    settings: dict[str, Any] = {**case.given, "threads": 1, "device": "cpu", **case.settings}
    fixed = {"backbone": case.backbone, "image_size": case.size, "epochs": case.epochs, "seed": case.seed}
    results = list(run.train(str(case.folder), output=f"{place}/model", **fixed, **settings))
    loss = min(result.val_loss for result in results)

    def test() -> float:
        found = evaluate(Path(place, "model"), str(case.folder), load_plugins(), split="test", device="cpu")
        return found.scores.accuracy

    return loss, test


def logistic(case: Case) -> Outcome:
    """Fit scikit-learn's logistic regression to the features of the frozen network, with eleven values of C."""
    import numpy as np
    import timm
    import torch
    from safetensors.torch import load_file
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    torch.set_num_threads(1)
    images, _, channels = _decoded(case, case.backbone.removeprefix("timm/"))
    network = timm.create_model(case.backbone.removeprefix("timm/"))
    network.load_state_dict(load_file(str(case.weights)))
    network.reset_classifier(0)
    features = {split: _logits(network, channels, pixels).numpy() for split, (pixels, _) in images.items()}
    mean, deviation = features["train"].mean(0), features["train"].std(0) + 1e-6
    features = {split: (values - mean) / deviation for split, values in features.items()}
    fits = [
        LogisticRegression(C=c, max_iter=1000).fit(features["train"], images["train"][1])
        for c in np.logspace(-5, 5, 11)
    ]
    losses = [log_loss(images["val"][1], fit.predict_proba(features["val"])) for fit in fits]
    best = fits[int(np.argmin(losses))]
    return min(losses), lambda: float(best.score(features["test"], images["test"][1]))


def whole_search(case: Case) -> Outcome:
    """Run `automl-pt search` with its defaults from an empty cache; any of its settings may be set.

    `pruner=none` runs all trials in full. The extra figures are the probe's loss, the trials' losses and the winner.
    """
    from automl_pt import search
    from automl_pt.model.evaluate import evaluate
    from automl_pt.plugins.manager import load_plugins

    folder, weights = case.folder.resolve(), case.given
    os.environ["AUTOML_PT_CACHE"] = f"{tempfile.mkdtemp(prefix='transfer-')}/cache"
    os.chdir(tempfile.mkdtemp(prefix="transfer-"))  # the study's folder is made here
    settings: dict[str, Any] = {**weights, "threads": 1, "device": "cpu", "report": False}
    fixed = {"backbones": [case.backbone], "image_size": case.size, "epochs": case.epochs, "seed": case.seed}
    result = search(str(folder), **fixed, **settings, **case.settings)
    assert result.best is not None
    assert result.model is not None
    model = Path(result.model)
    trials = {trial.number: [trial.params["lr"], trial.params["batch_size"], trial.value] for trial in result.trials}
    probes = [probe.value for probe in result.probes]
    print(json.dumps({"best": result.best.number, "probes": probes, "trials": trials}), file=sys.stderr)
    value = result.best.value

    def test() -> float:
        return evaluate(model, str(folder), load_plugins(), split="test", device="cpu").scores.accuracy

    return float("nan") if value is None else value, test


def first_model(case: Case) -> Outcome:
    """Run a search until its linear probe is a finished model, and stop it there."""
    from automl_pt.api.search import run_search
    from automl_pt.config import SearchConfig, make
    from automl_pt.model.evaluate import evaluate
    from automl_pt.plugins.manager import load_plugins
    from automl_pt.study.events import Event, ProbeEnded

    place, ended = Path(tempfile.mkdtemp(prefix="transfer-")), list[Event]()
    fixed = {"backbones": [case.backbone], "image_size": case.size, "epochs": case.epochs, "seed": case.seed}
    own = {**case.given, "threads": 1, "device": "cpu", "report": False, "workers": 0}
    config = make(SearchConfig, {"dataset": str(case.folder.resolve()), **fixed, **own, "cache_dir": f"{place}/cache"})

    def heard(event: Event) -> None:
        if isinstance(event, ProbeEnded):
            ended.append(event)

    result = run_search(config, place / "study", on_event=heard, stop=lambda: 2 if ended else None)
    assert result.model is not None
    assert result.best is not None
    assert result.best.value is not None
    model = Path(result.model)
    data = str(case.folder)
    return result.best.value, lambda: evaluate(model, data, load_plugins(), split="test", device="cpu").scores.accuracy


def one_pass(case: Case) -> Outcome:
    """Decode training and validation images, and run the frozen network on each once."""
    import timm
    import torch
    from safetensors.torch import load_file
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    name = case.backbone.removeprefix("timm/")
    way = transforms.Compose([transforms.Resize(case.size), transforms.CenterCrop(case.size), transforms.PILToTensor()])
    config: Any = timm.get_pretrained_cfg(name)
    network = timm.create_model(name)
    network.load_state_dict(load_file(str(case.weights)))
    network.reset_classifier(0)
    mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    for split in ("train", "val"):
        images = torch.stack([image for image, _ in datasets.ImageFolder(case.folder / split, way)])
        _logits(network, lambda batch: (batch / 255 - mean) / std, images)
    return float("nan"), lambda: float("nan")


#: an arm's name, and what runs it in a process of its own
ARMS: dict[str, Callable[[Case], Outcome]] = {
    "plain": plain,
    "train": train,
    "search": whole_search,
    "logistic": logistic,
    "first-model": first_model,
    "pass": one_pass,
}


class Watch(threading.Thread):
    """Notes the highest memory in MB of this process and all below it together.

    That is their own memory and the mapped files of one of them, because libraries and decoded images are shared.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.ended = 0.0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.1):
            found = [memory(process) for process in tree(os.getpid())]
            self.peak = max(self.peak, sum(own for own, _ in found) + max(mapped for _, mapped in found))


def memory(process: int) -> tuple[float, float]:
    """Return a process's own memory, and the files it has mapped, in MB; 0 once it has ended."""
    try:
        lines = (line.split() for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
        sizes = {words[0]: int(words[1]) / 1024 for words in lines}
    except OSError:
        return 0.0, 0.0
    return sizes["Anonymous:"], sizes["Rss:"] - sizes["Anonymous:"]


def tree(process: int) -> list[int]:
    """Return a process and all that it and its children have started."""
    try:
        below = [path.read_text().split() for path in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:
        below = []
    return [process, *(one for children in below for child in children for one in tree(int(child)))]


def cell(arm: str, case: Case, *, memory: bool) -> dict[str, float | None]:
    """Run one arm in this process; count its CPU seconds, those of its children too, and with `memory` that of all.

    To look at the memory takes seconds of the CPU itself.
    """
    watch = Watch()
    if memory:
        watch.start()
    loss, test = ARMS[arm](case)
    watch.ended.set()
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu, peak = sum(one.ru_utime + one.ru_stime for one in usage), max(one.ru_maxrss for one in usage) / 1024
    return {
        "val_loss": _rounded(loss),
        "test_accuracy": _rounded(test()),
        "cpu_seconds": round(cpu, 1),
        "peak_mb": round(peak),
        **({"peak_mb_of_all": round(watch.peak)} if memory else {}),
    }


def _rounded(figure: float) -> float | None:
    """Return a figure for JSON, which has no NaN: None where there is none."""
    return None if math.isnan(figure) else round(figure, 4)


def subset(folder: Path, images: int, place: Path) -> Path:
    """Link `images` training images, of each class its share, and all others, into `place`."""
    chosen, total = random.Random(0), sum(1 for path in (folder / "train").glob("*/*"))
    for path in sorted(folder.glob("*/*")):
        files = sorted(path.iterdir())
        if path.parent.name == "train" and images:
            chosen.shuffle(files)
            files = files[: round(images * len(files) / total)]
        target = place / path.parent.name / path.name
        target.mkdir(parents=True)
        for file in files:
            os.link(file, target / file.name)
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, help="default: the backbone's own, which the arms by hand cannot use")
    parser.add_argument("--backbone", default="timm/tf_efficientnet_lite0")
    parser.add_argument("--arms", nargs="+", default=["plain", "plain:lr=0.003", "train"])
    for name, default in (("size", 96), ("epochs", 5), ("images", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--results", default="transfer")
    parser.add_argument("--memory", action="store_true", help="watch the memory of all processes together")
    parser.add_argument("--here", action="store_true", help="run one arm in this process, for the script's own use")
    given = parser.parse_args()
    if given.here:
        arm, _, settings = given.arms[0].partition(":")
        wishes = {name: _value(text) for name, _, text in (part.partition("=") for part in settings.split(",") if part)}
        common = (given.folder, given.backbone, given.weights, given.size, given.epochs, given.seeds[0])
        print(json.dumps(cell(arm, Case(*common, wishes), memory=given.memory)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder.resolve().parent) as place:
        run_all(given, subset(given.folder, given.images, Path(place)))


def _value(text: str) -> Any:
    """Return the number or truth value that a setting's text means, else the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def run_all(given: argparse.Namespace, data: Path) -> None:
    base = f"{given.folder.name}, {given.images or 'all'} images, {given.size} px, {given.epochs} epochs"
    for seed in given.seeds:
        for arm in given.arms:
            key = f"{base}, {given.backbone}, {arm}, seed {seed}"
            if key in known(given.results):
                continue
            options = [f"--{name}={getattr(given, name)}" for name in ("backbone", "size", "epochs")]
            options += [] if given.weights is None else [f"--weights={given.weights}"]
            options += ["--memory"] if given.memory else []
            words = [sys.executable, __file__, str(data), *options, "--here", f"--seeds={seed}", "--arms", arm]
            began = time.monotonic()
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                print(key, "failed:", done.stderr.strip().splitlines()[-1:], flush=True)
                continue
            seconds, load = round(time.monotonic() - began, 1), round(os.getloadavg()[0], 1)
            found = {**json.loads(done.stdout.splitlines()[-1]), "seconds": seconds, "load": load}
            details = [line for line in done.stderr.splitlines() if line.startswith("{")]
            found |= {name: value for line in details for name, value in json.loads(line).items()}
            record.write(given.results, **{**read(given.results), "cells": {**known(given.results), key: found}})
            print(key, found, flush=True)


def known(name: str) -> dict[str, Any]:
    """Return the cells that were run; read anew each time, because another process may run others."""
    cells: dict[str, Any] = read(name).get("cells", {})
    return cells


def read(name: str) -> dict[str, Any]:
    """Return the figures in results/NAME.json, without those of the machine; nothing if there is no such file."""
    path = record.RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {key: value for key, value in found.items() if key not in record.MACHINE}


if __name__ == "__main__":
    main()
