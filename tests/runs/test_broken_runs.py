"""A run killed again and again, at any moment, ends with the weights of an unbroken one; so does one told to stop.

For the kills one interpreter with everything imported is forked for each attempt, so that an attempt costs no import;
the child runs the command line itself, is a process of its own, and is killed with SIGKILL.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import write_folder
from tiny_runs import command, equal, finished, record, start, write_plugin

from automl_pt.cli.signals import READING
from automl_pt.plugins.manager import load_plugins
from automl_pt.runs import run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs fork and SIGKILL")

SERVER = """
import os, sys
import torch
torch.set_num_threads(1)
import automl_pt.runs.run, automl_pt.cli.train, automl_pt.cli.display
from automl_pt.cli import main
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        main(line.split("\\x1f")[1:-1])
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(status, flush=True)
"""


class Forks:
    """Starts `automl-pt` commands in forks of one interpreter that has everything imported."""

    def __init__(self, cache: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "AUTOML_PT_CACHE": str(cache)}
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.to, self.out = self.server.stdin, self.server.stdout

    def begin(self, words: list[str]) -> int:
        """Start a command; return its process id."""
        self.to.write("\x1f" + "\x1f".join(words[3:]) + "\x1f\n")
        self.to.flush()
        return int(self.out.readline())

    def end(self) -> int:
        """Wait for the command; return its exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(int(self.out.readline()))

    def close(self) -> None:
        self.to.close()
        self.server.wait(30)
        self.out.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", {"train": 8, "val": 4})


@pytest.mark.parametrize(
    ("kills", "more"),
    [
        (20, {}),
        pytest.param(100, {}, marks=pytest.mark.slow),
        # PyTorch's compiler, which their libraries load, takes seconds in each of the processes
        pytest.param(6, {"optimizer": "adamw", "augmentation": "trivial"}, marks=pytest.mark.slow),
        pytest.param(6, {"optimizer": "schedule-free-adamw", "augmentation": "crop+mixup"}, marks=pytest.mark.slow),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else str(value),
)
def test_killed_at_random_moments_ends_as_an_unbroken_run(
    tmp_path: Path, data: Path, kills: int, more: dict[str, str]
) -> None:
    settings: dict[str, Any] = {"epochs": 6, "batch_size": 2, "checkpoint_minutes": 1e-6, "keep": "last", **more}
    words = [
        command(data, tmp_path / name, write_plugin(tmp_path), patience=99, **settings) for name in ("whole", "broken")
    ]
    with closing(Forks(tmp_path / "cache")) as forks:
        began = time.monotonic()
        forks.begin(words[0])
        assert forks.end() == 0
        _kill_until_done(forks, words[1], tmp_path / "broken", kills, time.monotonic() - began)
    _same_run(tmp_path / "whole", tmp_path / "broken")


def _kill_until_done(forks: Forks, words: list[str], output: Path, kills: int, duration: float) -> None:
    random_moment, killed = random.Random(kills), 0
    for _ in range(8 * kills):
        process = forks.begin(words)
        if killed < kills:
            time.sleep(random_moment.uniform(0, duration / 3))
            with suppress(ProcessLookupError):  # it ended before
                os.kill(process, signal.SIGKILL)
        code = forks.end()
        assert code in (0, -signal.SIGKILL)
        killed += code == -signal.SIGKILL
        if code == 0:
            if killed >= kills:
                return
            shutil.rmtree(output)  # it ended before it had been killed often enough: once more from the start
    raise AssertionError(f"killed {killed} times, and never done")


def _same_run(whole: Path, broken: Path) -> None:
    assert equal(whole, broken)
    times = dict.fromkeys(("seconds", "images_per_second", "data_wait", "peak_memory", "save_seconds"))
    histories = [
        [{**json.loads(line), **times} for line in (output / "history.jsonl").read_text().splitlines()]
        for output in (whole, broken)
    ]
    assert histories[0] == histories[1]
    assert record(broken)["reason"] == "completed"
    assert list(broken.rglob("*.tmp")) == []


def _until(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    while not process.stdout.readline().startswith(line):
        assert process.poll() is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_the_first_signal_finishes_the_step_and_saves(tmp_path: Path, data: Path, number: int, code: int) -> None:
    words = command(data, tmp_path / "out", write_plugin(tmp_path), epochs=100_000, patience=99_999)
    process = start(words, tmp_path / "cache")
    _until(process, "epoch 2")
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "finishing the step and saving" in errors
    assert "Traceback" not in errors
    assert record(tmp_path / "out")["reason"] == "interrupted"
    saved = json.loads((tmp_path / "out" / "checkpoints" / "last.json").read_text())[0]
    assert saved["epoch"] == len((tmp_path / "out" / "history.jsonl").read_text().splitlines()) >= 2


def test_under_nohup_a_terminal_that_goes_ends_nothing_and_a_clusters_warning_saves(tmp_path: Path, data: Path) -> None:
    words = command(data, tmp_path / "out", write_plugin(tmp_path), epochs=100_000, patience=99_999)
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = start(words, tmp_path / "cache", **ignoring)
    _until(process, "epoch 2")
    process.send_signal(signal.SIGHUP)
    _until(process, "epoch 9")
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 138
    assert errors.count("finishing the step and saving") == 1
    assert record(tmp_path / "out")["reason"] == "interrupted"


DROWSY = """
import time
import numpy as np
from automl_pt import Dataset, LabeledImages, hookimpl

class Pixels:
    def __len__(self):
        return 1000

    def __getitem__(self, index):
        if index == 20:
            print("reading", flush=True)
        time.sleep(0.05)
        return np.full((8, 8), index % 251, np.uint8)

def load(root):
    return LabeledImages(Pixels(), [index % 2 for index in range(1000)], ("a", "b"))

@hookimpl
def register_datasets():
    return [Dataset("drowsy", load)]
"""


@pytest.mark.parametrize("verb", ["train", "search"])
def test_a_signal_while_images_are_read_ends_the_command_and_leaves_nothing(tmp_path: Path, verb: str) -> None:
    # reading all of them twice, to hash and to decode, would take more than a minute
    plugin = tmp_path / "drowsy.py"
    plugin.write_text(DROWSY)
    words = [sys.executable, "-m", "automl_pt", verb, "drowsy", "--plugin", str(plugin), "--threads", "1"]
    words.append("--from-scratch")  # pretrained weights would be fetched before any image is read
    process = start(words, tmp_path / "cache", cwd=tmp_path)
    _until(process, "reading")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 143
    assert errors == f"\n{READING}\n"
    assert not (tmp_path / "runs").exists()
    assert list(tmp_path.rglob("*.pixels")) == list(tmp_path.rglob("manifest.json")) == []


SLOW = """
import time
from torch import nn
from automl_pt import Backbone, hookimpl

class Slow(nn.Linear):
    def forward(self, images):
        if self.training:
            print("in the step", flush=True)
            time.sleep(60)
        return super().forward(images.flatten(1))

@hookimpl
def register_backbones():
    return [Backbone("tiny", lambda classes, pretrained: Slow(192, classes), image_size=8)]
"""


def test_the_second_signal_ends_at_once(tmp_path: Path, data: Path) -> None:
    # only leaving at once gets out of a step that takes a minute
    plugin = tmp_path / "slow.py"
    plugin.write_text(SLOW)
    process = start(command(data, tmp_path / "out", plugin), tmp_path / "cache")
    _until(process, "in the step")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MiB for this test."""
    folder = tmp_path / "small"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command here")
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small tmpfs is not allowed here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_checkpoint_and_names_the_path(tmp_path: Path, data: Path, small_disk: Path) -> None:
    settings: dict[str, Any] = {"epochs": 120, "batch_size": 24, "patience": 999, "keep": "last"}
    whole, output, plugin = tmp_path / "whole", small_disk / "out", write_plugin(tmp_path)
    words = command(data, output, plugin, **settings)
    process, last = start(words, tmp_path / "cache"), output / "checkpoints" / "last.json"
    _until(process, "epoch 2")
    while not last.exists():  # epochs are seen before they are on disk
        assert process.poll() is None
        time.sleep(0.01)
    with open(small_disk / "ballast", "wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(1024))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "the output cannot be written" in errors
    assert str(output) in errors
    assert "free some space and run the same command again" in errors
    assert "Traceback" not in errors
    assert json.loads(last.read_text())[0]["epoch"] >= 1
    (small_disk / "ballast").unlink()
    code, _, errors = finished(words, tmp_path / "cache")
    assert code == 0, errors
    plugins, shared = load_plugins((str(plugin),)), {"backbone": "tiny", "lr": 0.01, "threads": 1, "device": "cpu"}
    list(run.train(str(data), output=whole, plugins=plugins, **shared, **settings))
    assert equal(output, whole)
