from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[1]


def run(directory: Path, kills: int, *, storage: str = "", seed: int = 1) -> tuple[int, list[dict[str, Any]]]:
    """Run the toy study under `kills` random SIGKILLs; return how many there were and the final trials."""
    command = [sys.executable, str(HERE / "kill_zygote.py"), str(directory), str(kills), "16", "9", storage, str(seed)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    killed, code = output.split()
    assert code == "0"
    trials = json.loads((directory / "result.json").read_text())["trials"]
    assert not any(trial["state"] == "RUNNING" for trial in trials)
    return int(killed), trials


def train(directory: Path, kills: int, seed: int = 1) -> tuple[int, list[dict[str, Any]]]:
    """Search drawn images with the real trainer under random SIGKILLs; return how many came, and the final trials."""
    command = [sys.executable, str(HERE / "kill_trainer.py"), str(directory), str(kills), "0", str(seed)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    told = json.loads(output)
    assert told["code"] == 0
    trials = json.loads((directory / "study" / "result.json").read_text())["trials"]
    return told["kills"], [{**trial, "seconds": None} for trial in trials]


@pytest.mark.slow
def test_fifty_kills_of_real_trainings_change_nothing(tmp_path: Path) -> None:
    _, unbroken = train(tmp_path / "unbroken", 0)
    kills, seed = 0, 0
    while kills < 50:
        seed += 1
        killed, broken = train(tmp_path / f"broken-{seed}", 50, seed)
        assert broken == unbroken
        kills += killed


@pytest.mark.parametrize("storage", ["", "journal:{}/study.log"])
def test_fifty_kills_change_nothing(tmp_path: Path, storage: str) -> None:
    _, unbroken = run(tmp_path / "unbroken", 0)
    killed, broken = run(tmp_path / "broken", 50, storage=storage.format(tmp_path))
    assert killed >= 50
    assert broken == unbroken
