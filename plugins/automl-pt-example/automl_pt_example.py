"""A backbone, a dataset and a tracker of one's own."""

from pathlib import Path

import numpy as np
from torch import nn

from automl_pt import Backbone, Dataset, LabeledImages, hookimpl


def tiny(num_classes, pretrained):
    """Build a network of one convolution: float[B, 3, S, S] to logits float[B, num_classes]."""
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))


def stripes(root):
    """Draw 60 noisy images of horizontal or vertical stripes, uint8 [16, 16]."""
    random, rows = np.random.default_rng(0), np.tile([[0], [180]], (8, 16))
    images = [(rows.T if i % 2 else rows) + random.integers(0, 70, (16, 16)) for i in range(60)]
    return LabeledImages([i.astype(np.uint8) for i in images], [i % 2 for i in range(60)], ["horizontal", "vertical"])


@hookimpl
def register_backbones():
    """Register `example/tiny`."""
    return [Backbone("example/tiny", tiny, image_size=16, min_image_size=2)]


@hookimpl
def register_datasets():
    """Register `example/stripes`."""
    return [Dataset("example/stripes", stripes, description="60 drawn images of stripes, 2 classes")]


@hookimpl
def epoch_finished(event):
    """Add the epoch's number and losses to `curve.csv` in the run directory; asked for by `--tracker example`."""
    figures = [event.figures.get(name, "") for name in ("train_loss", "val_loss")]
    with Path(event.run.directory, "curve.csv").open("a") as stream:
        print(event.epoch, *figures, sep=",", file=stream)
