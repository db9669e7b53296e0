"""A run's validation accuracy recomputed: by `predict` on the files, by each export, and by the README.md's own lines.

python benchmarks/exports.py RUN

RUN is a run directory whose images are still where they were. All of its validation images are taken, on the CPU.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

from automl_pt.model.export import ENDINGS, Format, export_model
from automl_pt.model.load import Model, load_model
from automl_pt.model.own_images import validation_images
from automl_pt.model.parity import ParityImages
from automl_pt.model.preprocessed import Stage
from automl_pt.plugins.manager import load_plugins

EXPORTS: tuple[tuple[Format, Stage], ...] = (
    ("onnx", "none"),
    ("onnx", "normalise"),
    ("onnx", "resize"),
    ("torch-export", "none"),
    ("torch-export", "resize"),
    ("safetensors", "none"),
)
#: runs the first Python block of README.md in the model's folder
PLAIN = """
import os, sys, torch
os.chdir(sys.argv[1])
space = {}
exec(open("README.md").read().split("```python\\n")[1].split("```")[0], space)
with torch.no_grad():
    torch.save(torch.cat([space["model"](some) for some in torch.load(sys.argv[2]).split(64)]), sys.argv[3])
assert "automl_pt" not in sys.modules
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    model, plugins = load_model(run, device="cpu", calibrated=False), load_plugins()
    images = validation_images(model, run, plugins, most=1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {"run": model.info.metrics["val_accuracy"]}
        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "predict": partial(by_predict, run, images, model, Path(folder)),
            "README.md": partial(by_readme, run, images, model, Path(folder)),
        }
        for kind, stage in EXPORTS:
            steps[f"{kind}, {stage}"] = partial(by_export, model, images, kind, stage, Path(folder))
        print(f"{'run':24} {found['run']}", flush=True)
        for name, step in steps.items():
            found[name] = step()
            print(f"{name:24} {found[name]}", flush=True)
    print(record.write("exports", backbone=model.info.backbone, images=len(images.sources), figures=found))


def by_predict(run: Path, images: ParityImages, model: Model, folder: Path) -> dict[str, Any]:
    """Predict the files by the command."""
    names = "\0".join(str(Path(source).absolute()) for source in images.sources)
    words = ["predict", str(run), "-", "-0", "-o", str(folder / "p.csv"), "--no-temperature", "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "automl_pt", *words], input=names, text=True, check=True)
    with open(folder / "p.csv", newline="") as stream:
        found = [model.classes.index(row["class"]) for row in csv.DictReader(stream)]
    return {"accuracy": float(np.mean(np.array(found) == np.array(images.labels)))}


def by_readme(run: Path, images: ParityImages, model: Model, folder: Path) -> dict[str, Any]:
    """Load the weights as README.md says, without this package, and give them the normalised pixels."""
    pixels = model.pixels(images.sources)
    torch.save(model.info.preprocessing.normalise(torch.from_numpy(pixels)), folder / "x.pt")
    script = [sys.executable, "-I", "-c", PLAIN, str(run.absolute()), str(folder / "x.pt"), str(folder / "y.pt")]
    subprocess.run(script, check=True, env={**os.environ})
    logits = torch.load(folder / "y.pt").numpy()
    own = np.concatenate([model.forward(pixels[start : start + 64]) for start in range(0, len(pixels), 64)])
    return {
        "accuracy": float(np.mean(logits.argmax(1) == np.array(images.labels))),
        "largest_difference": float(np.abs(logits - own).max()),
    }


def by_export(model: Model, images: ParityImages, kind: Format, stage: Stage, folder: Path) -> dict[str, Any]:
    parity = export_model(model, folder / f"m{ENDINGS[kind]}", kind, images, preprocessing=stage)
    return {key: value for key, value in parity.to_dict().items() if key not in ("said", "bound")}


if __name__ == "__main__":
    main()
