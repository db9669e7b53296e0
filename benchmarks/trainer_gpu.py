"""The row `gpu` of trainer.py: eager steps, recorded steps, and recorded steps of the compiled network, on one device.

Every way trains the same images, which lie on the device; P reads them from files with as many workers as serve it
best. On a CPU, where nothing is recorded, one small case runs, so that the script itself can be tried out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from sides import Sides, plain

from automl_pt.backbones.build import build_model
from automl_pt.training.cuda.compile import compiled
from automl_pt.training.cuda.graph import GraphedStep, why_not
from automl_pt.training.loop import Training

#: network, side, batch, images; and the eager ceiling of one H200 in images per second, where one was estimated
CASES: list[tuple[str, int, int, int, int | None]] = [
    ("resnet18", 224, 256, 1536, 25_600),
    ("resnet50", 224, 128, 1664, 7_000),
    ("densenet121", 224, 128, 1664, 5_800),
    ("resnet18", 32, 32, 1760, None),
]
TRY_OUT: list[tuple[str, int, int, int, int | None]] = [("timm/test_resnet", 16, 32, 96, None)]
WARM_UP, REPEATS, EPOCHS = 2, 5, 4
WAYS = ("eager", "graph", "compile")


def cases(data: Path, device: torch.device) -> Iterator[dict[str, Any]]:
    for name, side, batch, images, ceiling in CASES if device.type == "cuda" else TRY_OUT:
        found: dict[str, Any] = {"network": name, "side": side, "batch": batch, "images": images, "ceiling": ceiling}
        for way in WAYS:
            sides = Sides(str(data), name, side, images, device, batch=batch, cuda_graph=way != "eager")
            found[way] = images_per_second(sides, way)
        found["plain"] = {str(n): plain_images_per_second(sides, data, n) for n in workers(device)}
        yield found | ratios(found)


def workers(device: torch.device) -> list[int]:
    cores = len(os.sched_getaffinity(0))
    return sorted({max(1, cores // 4), max(1, cores // 2), cores}) if device.type == "cuda" else [0]


def images_per_second(sides: Sides, way: str) -> dict[str, Any]:
    """Return the median and every repeat, and the seconds before the first one: recording, compiling."""
    ours = sides.ours()
    if way != "eager" and (reason := why_not(ours.step)) is not None:
        return {"left_out": reason}
    began = time.perf_counter()
    if way == "compile":
        ours.step.forward = compiled(ours.step.model)
        split = ours.train_loader.resident
        ours.take_step = GraphedStep(ours.step, sides.config.batch_size, make=split.batch if split else None)
    epoch(ours)
    return {"first_epoch_seconds": time.perf_counter() - began, **rate(sides, lambda: epoch(ours))}


def epoch(ours: Training) -> None:
    ours.progress.batches_done = 0
    ours.train_epoch(lambda done, batches: False, lambda: None)
    if ours.device.type == "cuda":
        torch.cuda.synchronize(ours.device)


def plain_images_per_second(sides: Sides, data: Path, workers: int) -> dict[str, Any]:
    model = build_model(sides.backbone, sides.classes, sides.side, seed=1).to(sides.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    loader = sides.plain(data / "train", training=True, workers=workers)
    return rate(sides, lambda: plain(sides, model, optimizer, loader), epochs=1)


def rate(sides: Sides, work: Callable[[], object], epochs: int = EPOCHS) -> dict[str, Any]:
    speeds = []
    for allocation_lock in range(WARM_UP + REPEATS):
        began = time.perf_counter()
        for _ in range(epochs):
            work()
        if allocation_lock >= WARM_UP:
            speeds.append(epochs * len(sides.train.labels) / (time.perf_counter() - began))
    return {"median": median(speeds), "all": speeds}


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """Return the fastest way against eager steps, the ceiling, and P with its best number of workers."""
    speeds = {way: found[way]["median"] for way in WAYS if "median" in found[way]}
    best = max(speeds.values())
    told = {"over_plain": best / max(side["median"] for side in found["plain"].values())}
    told |= {f"{way}_over_eager": speed / speeds["eager"] for way, speed in speeds.items()}
    return told | ({"of_ceiling": best / found["ceiling"]} if found["ceiling"] else {})
