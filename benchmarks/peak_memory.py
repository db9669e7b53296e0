"""Peak memory of a search over that of one training, and how both grow with more of the same.

    python benchmarks/peak_memory.py [BACKBONE] [TRIALS]

Draws 48 small images. The goals: a search takes at most 1.2 times what one training takes, in its largest process, and
what a process keeps of each further training is under 1 MB. Prints one JSON object.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

#: trainings before the first that counts: libraries load what they need in these
FIRST = 3


def draw(folder: Path) -> None:
    """Draw images of two classes."""
    for label, name in enumerate("ab"):
        (folder / name).mkdir(parents=True)
        for number in range(24):
            pixels = np.random.default_rng([label, number]).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def peak(words: list[str], folder: Path) -> float:
    """Run the command; return the peak in MB of the largest of its processes."""
    command = [sys.executable, "-m", "automl_pt", *words]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1024


def resident() -> float:
    """Return this process's resident memory in MB."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def growth(backbone: str, folder: Path, trainings: int) -> float:
    """Return the MB by which this process grows with each training after the first few."""
    from automl_pt import train

    sizes = []
    for number in range(trainings):
        output = folder / f"run-{number}"
        options = {"backbone": backbone, "epochs": 1, "batch_size": 8, "image_size": 32, "device": "cpu", "threads": 1}
        list(train(str(folder / "images"), output=output, pretrained=False, **options))
        shutil.rmtree(output)
        sizes.append(resident())
    return (sizes[-1] - sizes[FIRST - 1]) / (trainings - FIRST)


def main() -> None:
    """Measure and print."""
    backbone, trials = (sys.argv[1:] + ["resnet18", "10"][len(sys.argv) - 1 :])[:2]
    folder = Path(tempfile.mkdtemp())
    draw(folder / "images")
    small = ["--image-size", "32", "--epochs", "1", "--device", "cpu", "--threads", "1", "--from-scratch"]
    words = ["images", "--backbone", backbone, *small, "--batch-size", "8"]
    one = peak(["train", *words, "-o", "run"], folder)
    searched = {
        workers: peak(
            ["search", *words, "--trials", trials, "--workers", workers, "--name", f"s{workers}", "--no-report"], folder
        )
        for workers in ("0", "1")
    }
    grown = growth(backbone, folder, int(trials))
    shutil.rmtree(folder)
    ratios = {f"search_workers_{workers}_over_one": found / one for workers, found in searched.items()}
    print(json.dumps({"backbone": backbone, "one_training_mb": one, **ratios, "growth_mb_per_training": grown}))


if __name__ == "__main__":
    main()
