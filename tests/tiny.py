"""A tiny backbone as a plugin file, and a model directory made with it: what the tests of finished models share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from automl_pt.backbones.build import build_model
from automl_pt.images.preprocessing import Preprocessing
from automl_pt.model.load import ModelInfo, save_model
from automl_pt.plugins.manager import Plugins, load_plugins

PLUGIN = """
from torch import nn
from automl_pt import Backbone, hookimpl

def tiny(num_classes, pretrained):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, num_classes))

@hookimpl
def register_backbones():
    return [Backbone("tiny", tiny, image_size=8)]
"""


#: runs out of memory at the allocator's boundary whenever more than two images come at once, except in training
HUNGRY = """
import torch

class Hungry(nn.Sequential):
    def forward(self, images):
        if not self.training and len(images) > 2:
            torch.empty(2**62, dtype=torch.uint8)  # the allocator itself refuses
        return super().forward(images)
"""


def load_tiny(folder: Path, text: str = PLUGIN) -> Plugins:
    """Write the plugin into `folder` and load it with the built-ins."""
    path = folder / "tiny_plugin.py"
    path.write_text(text)
    return load_plugins((str(path),))


def hungry(text: str) -> str:
    """Return a plugin file's text with networks that run out of memory, and have the same weights."""
    head, imports, rest = text.partition("from automl_pt import Backbone, hookimpl\n")
    return head + imports + HUNGRY + rest.replace("nn.Sequential(", "Hungry(")


def make_info(classes: tuple[str, ...] = ("blue", "green", "red"), **changes: Any) -> ModelInfo:
    values: dict[str, Any] = {
        "backbone": "tiny",
        "classes": classes,
        "preprocessing": Preprocessing(8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        "config": {"lr": 0.1, "pretrained": False},
        "metrics": {"epoch": 1, "val_loss": 0.5, "val_accuracy": 0.75},
        "history": [{"epoch": 1, "val_loss": 0.5}],
        "versions": {"torch": torch.__version__},
        "data": {"fingerprint": "abc", "source": "folder", "counts": {"train": 24}},
        "plugins": [{"name": "tiny_plugin", "version": "", "origin": "tiny_plugin.py"}],
    }
    return ModelInfo(**{**values, **changes})


def make_state(plugins: Plugins, classes: int = 3, seed: int = 1) -> dict[str, Tensor]:
    return dict(build_model(plugins.backbone("tiny"), classes, 8, seed=seed).state_dict())


def make_model(directory: Path, plugins: Plugins, **changes: Any) -> Path:
    """Write a model directory with random weights."""
    info = make_info(**changes)
    save_model(directory, make_state(plugins, len(info.classes)), info)
    return directory
