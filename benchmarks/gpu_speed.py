"""The stages of `gpu_day.py` that measure speed."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_stages import CASES, DEVICE, ON_GPU, PLUGIN, TINY, drawn, rate, tell, training

from automl_pt.data.loader import Loader
from automl_pt.dataset import Hints
from automl_pt.study.executor.gpu_share import GAIN, gain
from automl_pt.study.executor.mps import Mps
from automl_pt.training.device import synchronise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def steps() -> None:
    """Single and recorded steps (G4, G8), cuDNN's benchmark mode, and where the time of one case goes."""
    found: dict[str, Any] = {}
    for name, side, batch, ceiling in CASES if ON_GPU else [(TINY, 16, 8, None)]:
        count, row = batch * (12 if ON_GPU else 2), {}
        for way, settings in (("single", {"cuda_graph": False}), ("recorded", {"cuda_graph": True}))[: 1 + ON_GPU]:
            ours = training(name, side, batch, count, **settings)
            row[way] = round(rate(ours, 1.5 if ON_GPU else 0.0))
            if ours.step.notes:
                row["notes"] = ours.step.notes
        if ON_GPU and side == 224:
            torch.backends.cudnn.benchmark = True
            row["cudnn_benchmark"] = round(rate(training(name, side, batch, count), 1.5))
            torch.backends.cudnn.benchmark = False
        row |= {"gain": round(row["recorded"] / row["single"], 2)} if ON_GPU else {}
        row |= {"of_ceiling": round(row["recorded"] / ceiling, 2)} if ceiling else {}
        found[f"{name} {side} px b{batch}"] = row
        tell(images_per_second=found)
    _profile()


def _profile() -> None:
    name, side, batch = ("resnet18", 64, 64) if ON_GPU else (TINY, 16, 8)
    ours = training(name, side, batch, 4 * batch, cuda_graph=False)
    rate(ours, 0.0)
    kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if ON_GPU else [])]
    with torch.profiler.profile(activities=kinds, acc_events=True) as profile:
        rate(ours, 0.0)
    key = "self_device_time_total" if ON_GPU else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: -getattr(event, key))[:10]
    tell(profile={event.key[:60]: round(getattr(event, key) / 1000, 2) for event in events})


def batches() -> None:
    """Images per second from the device and from main memory, cropped, mirrored and normalised (G6)."""
    side, count, batch = (224, 6000, 256) if ON_GPU else (16, 40, 8)
    pixels, options = drawn(count, side), {"mean": MEAN, "std": STD, "channels_last": True}
    loader = Loader(
        pixels, batch_size=batch, seed=1, device=DEVICE, hints=Hints(), augmented_epochs=99, shuffle=True, **options
    )
    streamed = Loader(
        pixels, batch_size=batch, seed=1, device=DEVICE, hints=Hints(), augmented_epochs=99, shuffle=True, **options
    )
    if ON_GPU:
        streamed._place("sent", options)
        streamed.resident = None
    for name, one in (("kept_on_the_device", loader), ("sent_batch_by_batch", streamed)):
        speeds = []
        for epoch in range(1, 5):
            synchronise(DEVICE)
            began = time.perf_counter()
            for _ in one.epoch(epoch):
                pass
            synchronise(DEVICE)
            speeds.append(count / (time.perf_counter() - began))
        tell(**{name: round(max(speeds[1:]))})


def compiled() -> None:
    """What compiling costs and gains."""
    name, side, batch = ("resnet50", 224, 128) if ON_GPU else (TINY, 16, 8)
    plain = rate(training(name, side, batch, 4 * batch), 2.0 if ON_GPU else 0.0)
    tell(plain=round(plain))
    ours = training(name, side, batch, 4 * batch, compile="always")
    began = time.perf_counter()
    rate(ours, 0.0)
    tell(first_epochs_seconds=round(time.perf_counter() - began, 1), notes=ours.step.notes)
    tell(compiled=round(rate(ours, 2.0 if ON_GPU else 0.0)))


def together() -> None:
    """K trainings at once on one device, in turns and with MPS (G7); how many a search would choose from this."""
    counts, mps, found = (1, 2, 4, 8) if ON_GPU else (1,), Mps(), dict[str, Any]()
    without = mps.start() if ON_GPU else "no GPU"
    if without is not None:
        tell(mps=without)
    try:
        for kind, extra in {"in turns": {}, **({} if without else {"mps": mps.environment})}.items():
            speeds = {count: _at_once(count, extra) for count in counts}
            more = [(two, gain({"": speeds[two // 2]}, two // 2, {"": speeds[two]}, two) or 0.0) for two in counts[1:]]
            worth = [two for two, _ in itertools.takewhile(lambda found: found[1] >= GAIN, more)]
            found[kind] = {"images_per_second": {count: round(sum(one)) for count, one in speeds.items()}}
            found[kind] |= {"gains": dict(more), "chosen": max(worth, default=1)}
            tell(together=found)
    finally:
        mps.close()


def _at_once(count: int, environment: dict[str, str]) -> list[float]:
    """Return the images per second of each of `count` trainings that run at once."""
    if not ON_GPU:
        return [rate(training(TINY, 16, 8, 16), 0.0)]
    command = [sys.executable, str(Path(__file__).with_name("gpu_stages.py")), "one_of_many"]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "env": {**os.environ, **environment}}
    children = [subprocess.Popen(command, **options) for _ in range(count)]
    return [float(child.communicate()[0].split()[-1]) for child in children]


def one_of_many() -> None:
    """Be one of the trainings of `together`: print its images per second."""
    print(rate(training("resnet18", 32, 32, 32 * 40), 3.0), flush=True)


def search() -> None:
    """One search of 16 trials against one plain run on the same folder (G1), and one epoch of ResNet-50 (G2)."""
    from search_rivals import plain_run

    from automl_pt.api.search import run_search
    from automl_pt.config import SearchConfig

    count, trials, epochs = (6000, 16, 3) if ON_GPU else (40, 2, 1)
    with tempfile.TemporaryDirectory() as place:
        folder = _folder(Path(place) / "images", count)
        os.environ["AUTOML_PT_CACHE"] = f"{place}/cache"
        if ON_GPU:
            began = time.monotonic()
            plain_run(folder, epochs, 1, batch_size=64, side=32, device="cuda", processes=8)
            tell(plain_run_seconds=round(time.monotonic() - began, 1))
        settings: dict[str, Any] = {"backbones": ("resnet18" if ON_GPU else TINY,), "pretrained": False}
        settings |= {"image_size": 32, "device": "cuda" if ON_GPU else "cpu", "report": False, "epochs": epochs}
        settings |= {} if ON_GPU else {"plugins": (PLUGIN,), "threads": 1}
        settings |= {"batch_sizes": (16, 32, 64) if ON_GPU else (8,), "workers": None if ON_GPU else 0}
        began = time.monotonic()
        result = run_search(
            SearchConfig(dataset=str(folder), trials=trials, **settings), directory=Path(place) / "study"
        )
        tell(search_seconds=round(time.monotonic() - began, 1), states=[one.state for one in result.trials])
    if ON_GPU:
        tell(resnet50_224_images_per_second=round(rate(training("resnet50", 224, 128, 1280), 3.0)))


def _folder(root: Path, count: int) -> Path:
    from PIL import Image

    for split, share, seed in (("train", 0.8, 0), ("val", 0.2, 1)):
        pixels = drawn(round(count * share), 32, seed)
        for index, label in enumerate(pixels.labels.tolist()):
            path = root / split / f"class-{label}" / f"{split}-{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(pixels.images[index].transpose(1, 2, 0))).save(path)
    return root


STAGES = (steps, batches, compiled, together, one_of_many, search)
