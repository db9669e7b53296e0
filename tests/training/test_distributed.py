"""Two processes against one with the doubled batch, and a process that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_folder
from tiny_runs import command, finished, record, weights, write_plugin

from automl_pt.data.loader import Loader, batch_sizes
from automl_pt.data.prepare import Pixels
from automl_pt.dataset import Hints
from automl_pt.runs.directory import history
from automl_pt.training.distributed import ALONE, joined, local_device, processes_here

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo")


def together(words: list[str], cache: Path, processes: int = 2) -> tuple[int, str, str]:
    """Run a command line in several processes that `torchrun` starts."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "AUTOML_PT_CACHE": str(cache)}
    done = subprocess.run(
        [*start, *words[1:]], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path: Path) -> None:
    folder, plugin = write_folder(tmp_path / "data", {"train": 15, "val": 3}), write_plugin(tmp_path)
    shared: dict[str, Any] = {"backbone": "plain", "epochs": 3, "class_weights": "balanced", "precision": "fp32"}
    words = [*command(folder, tmp_path / "two", plugin, batch_size=4, **shared), "--json"]
    code, output, errors = together(words, tmp_path / "cache")
    assert code == 0, errors
    # one process talks
    assert [json.loads(line)["event"] for line in output.splitlines()] == ["epoch", "epoch", "epoch", "end"]
    words = command(folder, tmp_path / "one", plugin, batch_size=8, **{**shared, "lr": 0.02})
    code, _, errors = finished(words, tmp_path / "cache")
    assert code == 0, errors
    assert record(tmp_path / "two")["processes"] == 2
    ones, twos = history(tmp_path / "one"), history(tmp_path / "two")
    for one, two in zip(ones, twos, strict=True):
        assert two.lr == one.lr  # 0.01 for each of two processes
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-5)
        assert two.val_loss == pytest.approx(one.val_loss, rel=1e-5)
        assert two.val_accuracy == one.val_accuracy
        assert two.metrics == one.metrics
    for name, value in weights(tmp_path / "one").items():
        assert torch.allclose(weights(tmp_path / "two")[name], value, atol=1e-6), name


FAILING = """
import os
from torch import nn
from automl_pt import Backbone, hookimpl
from automl_pt.core.errors import DeviceError

class Failing(nn.Linear):
    steps = 0

    def forward(self, images):
        self.steps += self.training
        if self.steps == 3 and os.environ.get("RANK") == "1":
            raise DeviceError("a device must stay", given="it fell off the table", remedy="pick it up")
        return super().forward(images.flatten(1))

@hookimpl
def register_backbones():
    return [Backbone("tiny", lambda classes, pretrained: Failing(192, classes), image_size=8)]
"""


def test_one_process_that_fails_ends_all_with_its_message(tmp_path: Path) -> None:
    folder, plugin = write_folder(tmp_path / "data", {"train": 8, "val": 4}), tmp_path / "failing.py"
    plugin.write_text(FAILING)
    code, _, errors = together(command(folder, tmp_path / "out", plugin), tmp_path / "cache")
    assert code != 0
    assert "a device must stay" in errors
    assert "it fell off the table" in errors
    assert (tmp_path / "out" / "run.json").exists()
    assert not (tmp_path / "out" / "model.json").exists()


def loader(share: tuple[int, int], shuffle: bool) -> Loader:
    images = np.arange(23 * 3 * 64, dtype=np.int64).reshape(23, 3, 8, 8).astype(np.uint8)
    pixels = Pixels(images, np.arange(23, dtype=np.int64), tuple(map(str, range(23))))
    return Loader(
        pixels,
        batch_size=6,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        seed=1,
        device=torch.device("cpu"),
        hints=Hints(),
        augmented_epochs=0,
        shuffle=shuffle,
        share=share,
    )


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_shares_of_a_batch_join_to_the_batch(processes: int) -> None:
    whole = [labels.tolist() for _, labels in loader((0, 1), shuffle=True).epoch(2)]
    shares = [[labels.tolist() for _, labels in loader((rank, processes), True).epoch(2)] for rank in range(processes)]
    joined_batches = [sum(parts, []) for parts in zip(*shares, strict=True)]
    assert sum(joined_batches, []) == sum(whole, [])
    assert all(len(part) >= 2 for share in shares for part in share)


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_blocks_of_a_split_join_to_the_split(processes: int) -> None:
    found = [
        label
        for rank in range(processes)
        for _, labels in loader((rank, processes), shuffle=False).epoch(0)
        for label in labels.tolist()
    ]
    assert found == list(range(23))


def test_a_last_batch_too_small_for_all_processes_is_joined() -> None:
    assert batch_sizes(23, 10, 2) == [10, 13]
    assert batch_sizes(24, 10, 2) == [10, 10, 4]
    assert batch_sizes(3, 4, 2) == [3]


@pytest.mark.parametrize(("world", "local", "here"), [("4", "2", 2), ("1", "2", 1), (None, None, 1)])
def test_processes_on_one_machine_share_its_memory(
    monkeypatch: pytest.MonkeyPatch, world: str | None, local: str | None, here: int
) -> None:
    for name, value in (("WORLD_SIZE", world), ("LOCAL_WORLD_SIZE", local)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert processes_here() == here


def test_alone_everything_stays_as_it_is() -> None:
    with joined() as group:
        assert group is ALONE
        assert group.highest(7) == 7
        assert torch.equal(group.gather(torch.arange(3)), torch.arange(3))
    assert local_device("cpu") == "cpu"
    assert local_device("auto") == "auto"
