"""Runs a toy study in forked children and kills them at random; imports everything once, so that a kill costs little.

Called as: kill_zygote.py DIRECTORY KILLS TRIALS EPOCHS STORAGE SEED. Prints how many children were killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from toy_trial import TOY

from automl_pt.api.search import steps
from automl_pt.config import SearchConfig


def child(directory: Path, trials: int, epochs: int, storage: str | None) -> int:
    """Run the study to its end in a fork; return the child's process id."""
    process = os.fork()
    if process == 0:
        config = SearchConfig(dataset="plain", epochs=epochs, trials=trials, workers=0, storage=storage)
        for _ in steps(config, directory, objective=TOY):
            pass
        os._exit(0)
    return process


def main() -> None:
    directory, kills, trials, epochs, storage, seed = sys.argv[1:]
    random.seed(int(seed))
    done = 0
    while True:
        process = child(Path(directory), int(trials), int(epochs), storage or None)
        if done < int(kills):
            time.sleep(random.uniform(0.0, 0.12))
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if os.WIFSIGNALED(status):
            done += 1
        elif done >= int(kills) or os.waitstatus_to_exitcode(status):
            print(done, os.waitstatus_to_exitcode(status))
            return


if __name__ == "__main__":
    main()
