"""A search on one GPU: 16 trials against one plain run (P), and several trials at a time against one.

    python benchmarks/search_gpu.py FOLDER [--epochs 5] [--trials 16] [--device cuda]

FOLDER holds {train,val}/CLASS/*; ResNet-18 at 32 px, batches of at most 64. P is torchvision's ImageFolder, a
DataLoader with the number of processes that serves it best, and an eager float32 loop. Ours is the whole `automl-pt
search` from an empty cache, final model and report included. For trials at a time each worker is a process with its own
CUDA context; all trials run to their end, so that every side does the same work. Sides run in turns, each in a process
of its own. With `--device cpu` the script itself can be tried out on a few images: `--epochs 1 --trials 2`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import record
from search_rivals import plain_run

SIDE, BATCH, REPEATS = 32, 64, 3
AT_A_TIME = (1, 2, 4, 8)


def seconds_of_plain(folder: Path, epochs: int, device: str, processes: int) -> float:
    began = time.monotonic()
    plain_run(folder, epochs, 1, batch_size=BATCH, side=SIDE, device=device, processes=processes)
    return time.monotonic() - began


def seconds_of_search(folder: Path, epochs: int, trials: int, device: str, workers: int, pruner: str) -> float:
    from automl_pt.api.search import run_search
    from automl_pt.config import SearchConfig

    with tempfile.TemporaryDirectory() as place:
        os.environ["AUTOML_PT_CACHE"] = f"{place}/cache"
        settings: dict[str, Any] = {
            "backbones": ("resnet18",),
            "pretrained": False,
            "image_size": SIDE,
            "device": device,
        }
        settings |= {"workers": workers, "pruner": pruner, "batch_sizes": (16, 32, BATCH)}
        began = time.monotonic()
        found = run_search(
            SearchConfig(dataset=str(folder), epochs=epochs, trials=trials, **settings), Path(place, "study")
        )
        assert found.best is not None
        return time.monotonic() - began


def sides(trials: int) -> dict[str, dict[str, Any]]:
    """Name the sides of both comparisons, and what each is called with."""
    cores = len(os.sched_getaffinity(0))
    plain = {f"P, {n} processes": {"processes": n} for n in sorted({max(1, cores // 4), max(1, cores // 2), cores})}
    searches = {"search": {"trials": trials, "workers": 0, "pruner": "rungs"}}
    together = {f"{n} at a time": {"trials": max(AT_A_TIME), "workers": n, "pruner": "none"} for n in AT_A_TIME}
    return {**plain, **searches, **together}


def seconds(folder: Path, name: str, given: dict[str, Any], epochs: int, device: str) -> float:
    if name.startswith("P"):
        return seconds_of_plain(folder, epochs, device, **given)
    return seconds_of_search(folder, epochs, device=device, **given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--side")
    given = parser.parse_args()
    offered = sides(given.trials)
    if given.side:
        print(json.dumps(seconds(given.folder, given.side, offered[given.side], given.epochs, given.device)))
        return
    options = [f"--epochs={given.epochs}", f"--trials={given.trials}", f"--device={given.device}"]
    found: dict[str, list[float]] = {name: [] for name in offered}
    for _ in range(REPEATS):
        for name in offered:
            command = [sys.executable, __file__, str(given.folder), *options, f"--side={name}"]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found[name].append(json.loads(out.splitlines()[-1]))
            print(f"{name:16} {found[name][-1]:8.1f} s", flush=True)
    typical = {name: median(values) for name, values in found.items()}
    plain = min(value for name, value in typical.items() if name.startswith("P"))
    ratios = {"search over P": typical["search"] / plain}
    ratios |= {f"{n} at a time over one": typical["1 at a time"] / typical[f"{n} at a time"] for n in AT_A_TIME}
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    record.write("search_gpu", device=given.device, epochs=given.epochs, seconds=found, ratios=ratios)


if __name__ == "__main__":
    main()
