"""For how many of its epochs a run should be augmented: the same settings and seeds, and a number of epochs at the end
that see the images as they are.

    python benchmarks/archive/augmented_epochs.py FOLDER [--images 0] [--epochs 5] [--lr 0.0095] [--batch-size 16]
           [--clean 0 1 2 3 5] [--seeds 1 2 3]

FOLDER holds {train,val}/CLASS/*, of which the first IMAGES training images of each class are taken (0: all), and a
fifth as many to validate on. ResNet-18 at 64 px from scratch, shifts and mirror images in all epochs but the last
`--clean` ones (0: in all; as many as `--epochs`: in none), one thread, the number format that `--precision auto` takes.
The lowest validation loss and the highest accuracy of each run (rows of an earlier script lack the latter). Rows are
added to results/augmented_epochs.json; what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import record
from search_rivals import SIDE, subset

from automl_pt.config import TrainConfig
from automl_pt.data.prepare import prepare
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs.setup import new_training, set_up
from automl_pt.training.loop import train

RESULTS = record.RESULTS / "augmented_epochs.json"


def one_run(config: TrainConfig, clean: int) -> dict[str, float]:
    plugins = load_plugins()
    data = prepare(config, plugins)
    training = new_training(config, data, plugins.backbone(config.backbone), *set_up(config))
    training.train_loader.augmented_epochs = config.epochs - clean
    results = list(train(training))
    best = min(result.val_loss for result in results)
    return {"val_loss": round(best, 4), "val_accuracy": round(max(result.val_accuracy for result in results), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, default in (("images", 0), ("epochs", 5), ("batch-size", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=0.0095)
    parser.add_argument("--clean", type=int, nargs="+", default=[0, 1, 2, 3, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    settings = {"epochs": given.epochs, "lr": given.lr, "batch_size": given.batch_size}
    shared: dict[str, Any] = {"backbone": "resnet18", "pretrained": False, "image_size": SIDE, "threads": 1}
    shared["device"] = "cpu"
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    with tempfile.TemporaryDirectory(dir=given.folder.resolve().parent) as data, tempfile.TemporaryDirectory() as place:
        os.environ["AUTOML_PT_CACHE"] = place
        dataset = str(subset(given.folder, given.images, Path(data)))
        for seed in given.seeds:
            for clean in given.clean:
                row = {"set": given.folder.name, "images": given.images, **settings, "clean": clean, "seed": seed}
                if any(row.items() <= kept.items() for kept in rows):
                    continue
                config = TrainConfig(dataset=dataset, seed=seed, patience=given.epochs, **settings, **shared)
                rows.append({**row, **one_run(config, clean)})
                print(rows[-1], flush=True)
                record.write("augmented_epochs", runs=rows)


if __name__ == "__main__":
    main()
