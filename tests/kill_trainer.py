"""Searches drawn images with the real trainer in forked children and kills them at random, with all their workers.

Called as: kill_trainer.py DIRECTORY KILLS WORKERS SEED; `DIRECTORY/images` and `DIRECTORY/study` are made. It ends with
the study, after KILLS at most. Prints one JSON object: the kills, the exit code of the last child, and the epochs that
were on disk after each kill.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from conftest import write_folder
from test_search_images import PLUGIN

from automl_pt.api import classifier_objective as classifier  # noqa: F401  # imported once, here, so that a kill costs little
from automl_pt.api.search import steps
from automl_pt.config import SearchConfig

TRIALS, EPOCHS = 16, 9
#: seconds that a child lives at most before it is killed; with worker processes most of them go into starting one
LIFE = {0: 1.0, 1: 5.0}


def config(directory: Path, workers: int) -> SearchConfig:
    """Return the settings of the search, and write the images and the network it asks for."""
    if not (directory / "images").exists():
        write_folder(directory / "images", {"train": 120, "val": 40})
    (directory / "tiny_plugin.py").write_text(PLUGIN)
    return SearchConfig(
        dataset=str(directory / "images"),
        plugins=(str(directory / "tiny_plugin.py"),),
        backbones=("tiny",),
        batch_sizes=(4, 8, 16),
        epochs=EPOCHS,
        trials=TRIALS,
        workers=workers,
        threads=1,
        report=False,
    )


def child(settings: SearchConfig, directory: Path) -> int:
    """Run the study to its end in a fork; return the child's process id."""
    process = os.fork()
    if process == 0:
        for _ in steps(settings, directory / "study"):
            pass
        os._exit(0)
    return process


def epochs_on_disk(directory: Path) -> int:
    """Count the epochs that the trials have recorded."""
    return sum(len(path.read_text().splitlines()) for path in directory.glob("study/trials/*/history.jsonl"))


def main() -> None:
    """Kill until the search has ended, as often as told at most."""
    directory, kills, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance, seen = random.Random(int(sys.argv[4])), list[int]()
    directory.mkdir(parents=True, exist_ok=True)
    settings = config(directory, workers)
    while True:
        process = child(settings, directory)
        if len(seen) < kills:
            time.sleep(chance.uniform(0.0, LIFE[workers]))
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if os.WIFSIGNALED(status):
            seen.append(epochs_on_disk(directory))
        else:
            print(json.dumps({"kills": len(seen), "code": os.waitstatus_to_exitcode(status), "epochs": seen}))
            return


if __name__ == "__main__":
    main()
