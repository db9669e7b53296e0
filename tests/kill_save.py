"""Saves models and is killed on the way; run by test_model_directory.py in a process of its own.

`python kill_save.py FOLDER` ends a child at each audited system call of one save, and of one publish, in turn; then it
kills children at random times; then it lets the disk seem full. The folder must hold the old or the new model, whole.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import torch

from automl_pt.core.errors import OutputError
from automl_pt.model.directory import publish, read_model, save_model

sys.path.insert(0, str(Path(__file__).parent))
from tiny import make_info

WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.scandir", "glob.glob"}


def state(number: int, size: int = 50_000) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((3, size), float(number))}


def save(folder: Path, number: int) -> None:
    save_model(folder, state(number), make_info(metrics={"epoch": number}))


def found(folder: Path) -> int:
    """Return which model the folder holds; raise when it is not whole."""
    from safetensors.torch import load

    info, _, content = read_model(folder)
    (number,) = load(content)["weight"].unique().tolist()
    assert info.metrics["epoch"] == number, (info.metrics, number)
    return int(number)


def dies_at(step: int) -> None:
    """End this process, as a kill would, just before its `step`-th audited call."""
    left = step

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in WATCHED:
            left -= 1
            if left == 0:
                os._exit(9)

    sys.addaudithook(hook)


def in_child(work: object, *arguments: object) -> int:
    pid = os.fork()
    if pid == 0:
        work(*arguments)  # type: ignore[operator]
        os._exit(0)
    return pid


def every_step(folder: Path) -> None:
    for kind, work in (("save", lambda: save(folder, 2)), ("publish", lambda: publish(folder / "new", folder))):
        step, outcomes = 0, []
        while True:
            step += 1
            save(folder, 1)
            save(folder / "new", 2)
            _, status = os.waitpid(in_child(lambda at, what: (dies_at(at), what()), step, work), 0)
            outcomes.append(found(folder))
            if os.waitstatus_to_exitcode(status) == 0:
                break
        assert outcomes == sorted(outcomes), outcomes
        assert set(outcomes) == {1, 2}
        save(folder, 3)
        left = sorted(path.name for path in folder.iterdir() if path.is_file())
        assert len(left) == 3, left
        print(kind, "steps", len(outcomes))


def random_times(folder: Path, kills: int = 40) -> None:
    save(folder, 0)
    rng = random.Random(1)
    before = 0
    for _ in range(kills):
        pid = in_child(lambda first: [save(folder, first + more) for more in range(1000)], before + 1)
        time.sleep(rng.uniform(0.001, 0.15))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        after = found(folder)
        assert after >= before
        before = after
    print("kills", kills, "saves", before)


def no_space(folder: Path) -> None:
    def refused() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save(folder, 2)
        except OutputError as error:
            os._exit(7 if error.rule == "the output cannot be written" else 8)

    save(folder, 1)
    _, status = os.waitpid(in_child(refused), 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert found(folder) == 1
    assert len(list(folder.iterdir())) == 3
    print("no space")


if __name__ == "__main__":
    torch.set_num_threads(1)
    every_step(Path(sys.argv[1]) / "steps")
    random_times(Path(sys.argv[1]) / "random")
    no_space(Path(sys.argv[1]) / "full")
