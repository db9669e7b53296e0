"""What needs no search against our search: untuned optimisers at their published values, and 16 trials of ours.

    python benchmarks/rivals.py FOLDER [FOLDER ...] [--images 0] [--seeds 3] [--epochs 5] [--trials 16] [--side 64]
           [--backbone resnet18] [--pretrained] [--arms sgd adamw schedule-free-adamw search]

FOLDER holds {train,val,test}/CLASS/*. Arms run in turns, each in a process of its own, with one thread and from an
empty cache, so that imports and decoding count. The test split is measured once, on each arm's finished model. CPU
seconds are those of the arm's process. `--images N` takes about N training images, and a fifth as many to validate
and to test on, evenly over the classes. A cell (set, seed, arm) in results/rivals.json is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import record

RESULTS = record.RESULTS / "rivals.json"
ARMS = ("sgd", "adamw", "schedule-free-adamw", "search")


def train_arm(arm: str, folder: Path, place: Path, given: argparse.Namespace) -> Path:
    """Train once with an optimiser at its published values; return the model directory."""
    import automl_pt

    settings = {**shared(given), "backbone": given.backbone, "optimizer": arm, "output": place / "run"}
    list(automl_pt.train(str(folder), **settings))
    return place / "run"


def search_arm(folder: Path, place: Path, given: argparse.Namespace) -> Path:
    """Search learning rate and batch size of the documented SGD; return the finished model's directory."""
    from automl_pt.api.search import run_search
    from automl_pt.config import SearchConfig

    settings = {**shared(given), "backbones": (given.backbone,), "trials": given.trials, "workers": 0}
    run_search(SearchConfig(dataset=str(folder), report=False, **settings), place / "study")
    return place / "study" / "model"


def shared(given: argparse.Namespace) -> dict[str, Any]:
    how = {"epochs": given.epochs, "seed": given.seeds, "image_size": given.side, "pretrained": given.pretrained}
    return {**how, "threads": 1, "device": "cpu"}


def measured(model: Path, folder: Path) -> dict[str, float]:
    """Return accuracy and loss on the test split, and the kept epoch's validation loss."""
    import numpy as np

    import automl_pt

    loaded = automl_pt.load_model(model)
    files = [(path, label) for label, name in enumerate(loaded.classes) for path in (folder / "test" / name).iterdir()]
    labels, shares = np.array([label for _, label in files]), loaded.predict([path for path, _ in files])
    losses = -np.log(np.clip(shares[np.arange(len(labels)), labels], 1e-12, 1))
    figures = {"test_accuracy": float((shares.argmax(1) == labels).mean()), "test_loss": float(losses.mean())}
    return {**figures, "val_loss": loaded.info.metrics["val_loss"], "tested": len(labels)}


def cell(arm: str, folder: Path, given: argparse.Namespace) -> None:
    """Run one arm here, and print its figures; CPU seconds are those before the test split is read."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["AUTOML_PT_CACHE"] = f"{place}/cache"
        run = search_arm if arm == "search" else lambda *rest: train_arm(arm, *rest)
        model = run(folder, Path(place), given)
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        seconds = sum(one.ru_utime + one.ru_stime for one in used)
        print("\n" + json.dumps({"cpu_seconds": seconds, **measured(model, folder)}))


def subset(folder: Path, images: int, place: Path) -> Path:
    """Link about `images` training images, evenly over the classes, and a fifth as many of the other splits."""
    for split, count in (("train", images), ("val", images // 5), ("test", images // 5)):
        classes = sorted(path for path in (folder / split).iterdir() if path.is_dir())
        for path in classes:
            (place / split / path.name).mkdir(parents=True)
            for image in sorted(path.iterdir())[: -(-count // len(classes)) if images else None]:
                os.link(image, place / split / path.name / image.name)
    return place


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--cell", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--pretrained", action="store_true")
    for name, value in {"images": 0, "seeds": 3, "epochs": 5, "trials": 16, "side": 64}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    if given.cell:
        cell(given.cell, given.folders[0], given)
        return
    cells = json.loads(RESULTS.read_text())["cells"] if RESULTS.exists() else {}
    what = [given.backbone, given.pretrained, given.images, given.epochs, given.trials, given.side]
    for folder in given.folders:
        with tempfile.TemporaryDirectory() as place:
            found = subset(folder, given.images, Path(place))
            for seed in range(1, given.seeds + 1):
                for arm in given.arms:
                    key = " ".join(map(str, [folder.name, *what, seed, arm]))
                    if key not in cells:
                        cells[key] = in_process(arm, found, seed, given)
                        record.write("rivals", cells=cells)
                    print(key, {name: round(value, 3) for name, value in cells[key].items()}, flush=True)


def in_process(arm: str, folder: Path, seed: int, given: argparse.Namespace) -> dict[str, float]:
    words = [sys.executable, __file__, str(folder), "--cell", arm, "--seeds", str(seed), "--backbone", given.backbone]
    words += [word for name in ("epochs", "trials", "side") for word in (f"--{name}", str(getattr(given, name)))]
    words += ["--pretrained"] if given.pretrained else []
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
