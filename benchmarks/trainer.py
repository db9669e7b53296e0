"""The trainer against a plain run (P) and a bare loop with the same kernels (B); what saving and starting cost.

    python benchmarks/trainer.py DATA [ROW ...]         # DATA: a folder of photos, {train,val}/CLASS/*

P is torchvision's ImageFolder and DataLoader with an eager float32 loop; B is a loop written out here over our loader,
network and optimiser. Sides take turns in one process with one CPU thread. On a shared machine CPU seconds are the
figure that holds; wall seconds stand beside them. Rows run before are kept in results/trainer.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import record
import torch
from sides import BATCH, Sides, bare, in_turns, plain, plain_evaluation, timed
from torch.nn import functional as F

from automl_pt.backbones.build import build_model
from automl_pt.config import TrainConfig
from automl_pt.runs.setup import EVALUATION_BATCH
from automl_pt.training.checkpoint import Checkpoints
from automl_pt.training.device import choose_device, peak_memory
from automl_pt.training.evaluation import evaluate
from automl_pt.training.loop import Training, train
from automl_pt.training.sgd import SGD

#: network, side, batches a repeat, repeats
CASES = [("resnet18", 64, 8, 5), ("densenet121", 64, 4, 4), ("resnet18", 224, 2, 3), ("densenet121", 224, 2, 2)]


def against_plain(data: Path, device: torch.device) -> Iterator[dict[str, Any]]:
    """Images per second of training and evaluation, and the seconds a step over the bare loop."""
    for name, side, batches, repeats in CASES:
        sides = Sides(str(data), name, side, BATCH * batches, device)
        ours, model = sides.ours(), sides.model()
        own = SGD(list(model.parameters()), lr=0.01, momentum=0.9, weight_decay=1e-4)
        theirs = build_model(sides.backbone, sides.classes, side, seed=1).to(device)
        optimizer = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
        loaders = {
            training: sides.plain(data / name, training=training)
            for training, name in ((True, "train"), (False, "val"))
        }

        def epoch(ours: Training = ours) -> None:
            ours.progress.batches_done = 0
            ours.train_epoch(lambda done, batches: False, lambda: None)

        def evaluation(sides: Sides = sides, ours: Training = ours) -> None:
            evaluate(ours.model, ours.val_loader, device=device, precision=sides.precision)

        shared = sides.loader(sides.train, BATCH, training=True)
        training = in_turns(
            device,
            {
                "ours": epoch,
                "bare": lambda: bare(sides, model, own, shared),  # noqa: B023
                "plain": lambda: plain(sides, theirs, optimizer, loaders[True]),  # noqa: B023
            },
            repeats,
        )
        scoring = in_turns(
            device,
            {"ours": evaluation, "plain": lambda: plain_evaluation(sides, theirs, loaders[False])},  # noqa: B023
            repeats,
        )
        steps, images = len(ours.train_loader.batch_sizes), len(sides.train.labels)
        yield {
            "network": name,
            "side": side,
            "images_per_second": {side: images / found["seconds"] for side, found in training.items()},
            "over_plain": training["plain"]["seconds"] / training["ours"]["seconds"],
            "over_bare_percent": 100 * (training["ours"]["seconds"] / training["bare"]["seconds"] - 1),
            "over_bare_ms_a_step": 1000 * (training["ours"]["seconds"] - training["bare"]["seconds"]) / steps,
            "evaluation_over_plain": scoring["plain"]["seconds"] / scoring["ours"]["seconds"],
            "training": training,
            "evaluation": scoring,
        }


def pairs(data: Path, device: torch.device) -> Iterator[dict[str, Any]]:
    """A step of ours and one of the bare loop, 40 times in turns, and how much more CPU time ours took in each pair."""
    sides = Sides(str(data), "densenet121", 64, 4 * BATCH, device)
    ours, model = sides.ours(), sides.model()
    own = SGD(list(model.parameters()), lr=0.01, momentum=0.9, weight_decay=1e-4)
    batches = list(sides.loader(sides.train, BATCH, training=True).epoch(1))
    ours.model.train()

    def step(batch: Any) -> None:
        ours.loss_sum += ours.take_step(*batch, lr=0.01).to(ours.loss_sum.dtype) * BATCH

    over = []
    for allocation_lock in range(42):
        batch = batches[allocation_lock % len(batches)]
        works = {"ours": lambda b=batch: step(b), "bare": lambda b=batch: bare(sides, model, own, [b])}
        seconds = {name: timed(device, works[name])[0] for name in sorted(works, reverse=allocation_lock % 2 == 1)}
        if allocation_lock > 1:
            over.append(100 * (seconds["ours"] / seconds["bare"] - 1))
    error = stdev(over) / len(over) ** 0.5
    yield {"network": "densenet121", "side": 64, "over_bare_percent": median(over), "mean": mean(over), "error": error}


def small_steps(data: Path, device: torch.device) -> Iterator[dict[str, Any]]:
    """A network so small that the trainer's own work shows: digits at 8 px, batch 16."""
    sides = Sides("digits", "timm/test_resnet", 8, 1077, device)
    ours, model = sides.ours(), sides.model()
    own = SGD(list(model.parameters()), lr=0.01, momentum=0.9, weight_decay=1e-4)
    shared = sides.loader(sides.train, BATCH, training=True)

    def epoch() -> None:
        ours.progress.batches_done = 0
        ours.train_epoch(lambda done, batches: False, lambda: None)

    found = in_turns(device, {"ours": epoch, "bare": lambda: bare(sides, model, own, shared)}, 15)
    steps = len(ours.train_loader.batch_sizes)
    yield {
        "ms_a_step": {name: 1000 * times["seconds"] / steps for name, times in found.items()},
        "over_bare_percent": 100 * (found["ours"]["seconds"] / found["bare"]["seconds"] - 1),
        "over_bare_ms_a_step": 1000 * (found["ours"]["seconds"] - found["bare"]["seconds"]) / steps,
        "times": found,
    }


def saving(data: Path, device: torch.device) -> Iterator[dict[str, Any]]:
    """What writing `last` costs for ResNet-18 (weights and momentum), beside a copy of as many bytes."""
    ours = Sides("digits", "resnet18", 8, 64, device).ours()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        checkpoints = Checkpoints(Path(folder))
        counter = iter(range(100))
        found = in_turns(device, {"save": lambda: checkpoints.save(ours.state_dict(), epoch=next(counter), step=0)}, 5)
        size = max(path.stat().st_size for path in Path(folder).glob("last-*.pt"))
    wall = found["save"]["wall"]["median"]
    yield {"bytes": size, "seconds": wall, "percent_of_10_s": 10 * wall, "times": found}


def starting(data: Path, device: torch.device) -> Iterator[dict[str, Any]]:
    """From the command to the first step, caches warm: CPU seconds of each part, in a fresh process."""
    code = """
import time, json
parts, last = {}, time.process_time()
def mark(name):
    global last
    parts[name], last = time.process_time() - last, time.process_time()
import torch; mark("import torch"); torch.set_num_threads(1)
import automl_pt.runs.run as run; mark("import automl_pt.runs.run")
from automl_pt.config import TrainConfig
from automl_pt.plugins.manager import load_plugins
from automl_pt.data.prepare import prepare
plugins = load_plugins(); mark("plugins")
config = TrainConfig(dataset="digits", backbone="resnet18", threads=1, device="cpu"); data = prepare(config, plugins)
[data.pixels(split, 8) for split in ("train", "val")]; mark("data")
import tempfile, pathlib
list(run.execute(config, pathlib.Path(tempfile.mkdtemp()), data=data, plugins=plugins, after_step=lambda *_: True))
mark("network, first step and saving")
print(json.dumps(parts))
"""
    with record.bytecode() as environment:
        words = [sys.executable, "-c", code]
        turns = [subprocess.run(words, env=environment, capture_output=True, text=True, check=True) for _ in range(4)]
    for done in turns[1:]:  # the first one compiles what is imported
        parts = json.loads(done.stdout.splitlines()[-1])
        yield {"cpu_seconds": sum(parts.values()), "parts": parts}


def memory(data: Path, device: torch.device) -> Iterator[dict[str, Any]]:
    """The most resident memory of one epoch, ours and bare, each in a fresh process."""
    for name, side in (("resnet18", 64), ("densenet121", 64)):
        peaks = {}
        for which in ("ours", "bare"):
            words = [sys.executable, __file__, str(data), f"--peak={which},{name},{side}"]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            peaks[which] = int(done.stdout.splitlines()[-1])
        yield {"network": name, "side": side, "bytes": peaks, "percent": 100 * (peaks["ours"] / peaks["bare"] - 1)}


def peak(data: Path, which: str, name: str, side: int) -> None:
    sides = Sides(str(data), name, side, 4 * BATCH, torch.device("cpu"))
    ours, model = sides.ours(), sides.model()
    if which == "ours":
        ours.train_epoch(lambda done, batches: False, lambda: None)
    else:
        own = SGD(list(model.parameters()), lr=0.01, momentum=0.9, weight_decay=1e-4)
        bare(sides, model, own, sides.loader(sides.train, BATCH, training=True))
    print(peak_memory(sides.device))


def quality(data: Path, device: torch.device) -> Iterator[dict[str, Any]]:
    """The final validation loss of ours and P, three seeds, eight epochs of a small network at 32 px."""
    for dataset in (data, data.parent / "fashion_mnist_small"):
        sides = Sides(str(dataset), "timm/test_resnet", 32, 1768, device)
        for seed in (1, 2, 3):
            yield {"dataset": dataset.name, "seed": seed, **_quality(sides, dataset, seed)}


def _quality(sides: Sides, dataset: Path, seed: int) -> dict[str, float]:
    epochs, rate = 8, 0.03
    sides.config = TrainConfig(
        dataset=str(dataset), batch_size=BATCH, epochs=epochs, patience=epochs, lr=rate, seed=seed, pretrained=False
    )
    ours = list(train(sides.ours()))[-1]
    torch.manual_seed(seed + 100)  # P draws its order and augmentation from the global generators
    model = build_model(sides.backbone, sides.classes, 32, seed=seed + 100).to(sides.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=1e-4)
    loader = sides.plain(dataset / "train", training=True, shift=True)  # the augmentation that ours has
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    model.train()
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images.to(sides.device)), labels.to(sides.device)).backward()
            optimizer.step()
            schedule.step()
    val = sides.loader(sides.val, EVALUATION_BATCH, training=False)
    theirs = evaluate(model, val, device=sides.device)
    return {
        "ours": ours.val_loss,
        "plain": theirs.loss,
        "ours_accuracy": ours.val_accuracy,
        "plain_accuracy": theirs.accuracy,
    }


def profile(data: Path, device: torch.device) -> Iterator[dict[str, Any]]:
    """Where the CPU time of an epoch goes, part by part, batches and validation and saving included."""
    for name, side in (("resnet18", 64), ("densenet121", 64)):
        sides = Sides(str(data), name, side, 8 * BATCH, device)
        ours = sides.ours()
        step, parts = ours.step, dict.fromkeys(("batch", "forward", "backward", "update"), 0.0)
        ours.train_epoch(lambda done, batches: False, lambda: None)  # kernels are chosen, memory is taken
        last = time.process_time()

        def mark(part: str, parts: dict[str, float] = parts) -> None:
            nonlocal last
            now = time.process_time()
            parts[part], last = parts.get(part, 0.0) + now - last, now

        for images, labels in ours.train_loader.epoch(2):
            mark("batch")
            step.optimizer.zero_grad()
            loss = F.cross_entropy(step.forward(images).float(), labels)
            mark("forward")
            loss.backward()  # type: ignore[no-untyped-call]
            mark("backward")
            step.optimizer.step()
            mark("update")
        evaluate(ours.model, ours.val_loader, device=device, precision=sides.precision)
        mark(f"validation of {len(sides.val.labels)} images")
        with tempfile.TemporaryDirectory(dir=".") as folder:
            Checkpoints(Path(folder)).save(ours.state_dict(), epoch=1, step=0)
        mark("saving")
        whole = sum(parts.values())
        shares = {part: 100 * seconds / whole for part, seconds in parts.items()}
        yield {"network": name, "side": side, "images": len(sides.train.labels), "seconds": parts, "percent": shares}


ROWS = {
    "small_steps": small_steps,
    "pairs": pairs,
    "saving": saving,
    "starting": starting,
    "memory": memory,
    "against_plain": against_plain,
    "quality": quality,
    "profile": profile,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.peak:
        which, name, side = chosen.peak.split(",")
        peak(chosen.data, which, name, int(side))
        return
    device = choose_device(chosen.device)
    name = "trainer" if device.type == "cpu" else f"trainer_{device.type}"
    path = record.RESULTS / f"{name}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else {}
    for row in chosen.rows or ROWS:
        rows[row] = []
        for found in ROWS[row](chosen.data, device):
            rows[row].append({key: value for key, value in found.items()})
            shown = {key: value for key, value in found.items() if key not in ("times", "training", "evaluation")}
            print(row, json.dumps(shown, default=lambda value: round(value, 4)), flush=True)
            record.write(name, rows=rows)


if __name__ == "__main__":
    main()
