"""Small real runs that several test files start: a plugin file, a command line, and ways to compare results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

PLUGIN = """
from torch import nn
from automl_pt import Backbone, hookimpl

def tiny(num_classes, pretrained):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * 36, num_classes)
    )

def plain(num_classes, pretrained):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, num_classes))

@hookimpl
def register_backbones():
    return [Backbone("tiny", tiny, image_size=8), Backbone("plain", plain, image_size=8)]
"""


def write_plugin(folder: Path) -> Path:
    path = folder / "tiny_plugin.py"
    path.write_text(PLUGIN)
    return path


def command(folder: Path, output: Path, plugin: Path, **settings: Any) -> list[str]:
    """Return the command line of one tiny run."""
    given = {"backbone": "tiny", "epochs": 3, "batch_size": 4, "lr": 0.01, "threads": 1, "device": "cpu", **settings}
    options = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    start = [sys.executable, "-m", "automl_pt", "train", str(folder), "--output", str(output), "--plugin", str(plugin)]
    return start + options


def start(words: list[str], cache: Path, **more: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "AUTOML_PT_CACHE": str(cache)}
    return subprocess.Popen(words, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def finished(words: list[str], cache: Path) -> tuple[int, str, str]:
    """Run to the end; return exit code, output and error output."""
    process = start(words, cache)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def weights(output: Path) -> dict[str, torch.Tensor]:
    (path,) = output.glob("weights-*.safetensors")
    return load_file(path)


def equal(first: Path, second: Path) -> bool:
    one, two = weights(first), weights(second)
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


def record(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "run.json").read_text())
    return found
