"""Peak memory of a search's processes over that of one training, and what a process keeps of each further training.

    python benchmarks/peak_memory.py FOLDER [BACKBONE] [TRIALS] [EPOCHS]

FOLDER holds the images, in a folder for each class. Goals: the process that trains in a search takes at most 1.2 times
what one training takes, and keeps under 1 MB of each further one. Writes results/peak_memory.json.
"""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from record import write

#: trainings before the first that counts: libraries load what they need in these
FIRST = 3
SIDE, BATCH = 64, 16
#: seconds between two looks at the processes
LOOK = 0.1
GOAL = 1.2


def status(process: int, entry: str) -> float:
    """Return an entry of a process's status in MB; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(entry)), 0.0)


def children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


class Watch(threading.Thread):
    """Notes the highest resident memory of a command, of the keeper it starts, and of the worker below that."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process, self.peaks = process, {"command": 0.0, "keeper": 0.0, "worker": 0.0}
        self.ended = False

    def run(self) -> None:
        while not self.ended:
            self.note("command", [self.process])
            keepers = children(self.process)
            self.note("keeper", keepers)
            self.note("worker", [worker for keeper in keepers for worker in children(keeper)])
            time.sleep(LOOK)

    def note(self, kind: str, processes: list[int]) -> None:
        self.peaks[kind] = max([self.peaks[kind], *(status(process, "VmHWM") for process in processes)])


def peaks(words: list[str], folder: Path) -> dict[str, float]:
    """Run the command; return the peak in MB of each of its processes."""
    command = [sys.executable, "-m", "automl_pt", *words]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watch = Watch(process.pid)
    watch.start()
    _, said = process.communicate()
    watch.ended = True
    watch.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {said}")
    found = {kind: round(peak, 1) for kind, peak in watch.peaks.items() if peak}
    print(words[0], found, file=sys.stderr, flush=True)
    return found


def growth(images: Path, backbone: str, folder: Path, trainings: int) -> float:
    """Return the MB by which this process grows with each training after the first few."""
    import os

    from automl_pt import train

    sizes = []
    for number in range(trainings):
        output = folder / f"run-{number}"
        options = {"backbone": backbone, "epochs": 1, "batch_size": BATCH, "image_size": SIDE, "device": "cpu"}
        list(train(str(images), output=output, pretrained=False, threads=1, **options))
        shutil.rmtree(output)
        gc.collect()
        sizes.append(status(os.getpid(), "VmRSS"))
    return (sizes[-1] - sizes[FIRST - 1]) / (trainings - FIRST)


def main() -> None:
    """Measure, print and keep."""
    images, *more = sys.argv[1:]
    backbone, trials, epochs = (more + ["resnet18", "6", "1"][len(more) :])[:3]
    source, folder = Path(images).absolute(), Path(tempfile.mkdtemp())
    small = ["--image-size", str(SIDE), "--epochs", epochs, "--device", "cpu", "--threads", "1", "--no-pretrained"]
    words = [str(source), "--backbone", backbone, *small, "--batch-size", str(BATCH)]
    found: dict[str, Any] = {"training": peaks(["train", *words, "-o", "run"], folder)}
    for workers in ("0", "1"):
        asked = ["--trials", trials, "--workers", workers, "--pruner", "none", "--name", f"s{workers}"]
        found[f"search, workers {workers}"] = peaks(["search", *words, *asked], folder)
    one = found["training"]["command"]
    ratios = {
        "workers 0": found["search, workers 0"]["command"] / one,
        "workers 1, worker": found["search, workers 1"]["worker"] / one,
        "workers 1, coordinator": found["search, workers 1"]["command"] / one,
    }
    grown = growth(source, backbone, folder, int(trials) + FIRST)
    shutil.rmtree(folder)
    count = sum(path.is_file() for path in source.rglob("*"))
    figures = {"backbone": backbone, "side": SIDE, "images": count, "trials": int(trials), "epochs": int(epochs)}
    figures |= {"peak_mb": found, "over_one_training": ratios, "goal": GOAL, "kept_mb_per_training": grown}
    write("peak_memory", **figures)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
