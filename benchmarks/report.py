"""How long a report takes, and how large it is: 64 trials of 20 epochs, 5,000 validation images, 100 classes.

    python benchmarks/report.py [FOLDER]    FOLDER keeps the study; default: a temporary folder

The search is a real one, with a network so small that it takes minutes: each trial runs all its epochs, images are real
PNG files of 64 px, and everything is in the formats of any other study. Timed is the command, in a process of its own,
from its start to the file on disk; Python's compiled files are kept from the first call on, as in any installation.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from record import summary, write

from automl_pt.api.search import run_search
from automl_pt.config import SearchConfig

CLASSES, TRIALS, EPOCHS, REPEATS = 100, 64, 20, 5
IMAGES = {"train": 10, "val": 50}
SIDE = 64
PLUGIN = """
from torch import nn
from automl_pt import Backbone, hookimpl

def small(num_classes, pretrained):
    return nn.Sequential(
        nn.AvgPool2d(2), nn.Conv2d(3, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Linear(16 * 36, num_classes)
    )

@hookimpl
def register_backbones():
    return [Backbone("small", small, image_size=32)]
"""


def draw(label: int, index: int) -> Image.Image:
    """Draw a noisy disc: its colour and place belong to the class, and neighbours among the classes are alike."""
    generator = np.random.default_rng([label, index])
    pixels = generator.integers(0, 120, (SIDE, SIDE, 3))
    y, x = np.mgrid[:SIDE, :SIDE]
    centre = (12 + 4 * (label % 10) + generator.normal(0, 2), 12 + 4 * (label // 10) + generator.normal(0, 2))
    disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 90
    pixels[disc] += np.array([(37 * label) % 110, (53 * label) % 110, (71 * label) % 110])
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_images(folder: Path) -> None:
    for split, count in IMAGES.items():
        for label in range(CLASSES):
            target = folder / split / f"class {label:02}"
            target.mkdir(parents=True)
            for index in range(count):
                draw(label, index + 1000 * (split == "val")).save(target / f"{index:03}.png")


def make_study(folder: Path) -> Path:
    """Search, with every trial run to its end, unless FOLDER holds the study already; return the study's folder."""
    study, images, plugin = folder / "study", folder / "images", folder / "small.py"
    if not images.exists():
        make_images(images)
    plugin.write_text(PLUGIN)
    config = SearchConfig(
        dataset=str(images),
        backbones=("small",),
        plugins=(str(plugin),),
        trials=TRIALS,
        epochs=EPOCHS,
        patience=EPOCHS,
        pruner="none",
        threads=1,
        report=False,
    )
    run_search(config, study)
    return study


def report(study: Path, *options: str) -> tuple[str, float, float]:
    """Run `automl-pt report` and return what it printed, its wall time and its CPU time in seconds."""
    compiled = {"PYTHONPYCACHEPREFIX": str(study.parent / "compiled")}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | compiled
    command = [sys.executable, "-m", "automl_pt", "report", str(study), *options]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(folder: Path) -> None:
    study = make_study(folder)
    page = study.parent / "report.html"
    sections = json.loads(report(study, "--json")[0])["sections"]
    found = [report(study, "--html", str(page))[1:] for _ in range(REPEATS)]
    counts = {
        "trials": len(sections["trials"]["rows"]),
        "epochs": sections["time"]["epochs"],
        "validation_images": sections["classes"]["images"],
        "classes": len(sections["confusion"]["classes"]),
        "accuracy": sections["classes"]["accuracy"],
        "missing": [name for name, part in sections.items() if isinstance(part, dict) and "missing" in part],
    }
    wall, cpu = (summary(list(values)) for values in zip(*found, strict=True))
    load = os.getloadavg()[0]
    path = write("report", study=counts, seconds=wall, cpu_seconds=cpu, load_average=load, bytes=page.stat().st_size)
    print(path.read_text())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
