"""Drawn images for smoke tests and for measuring: as many as `--root` says, none of them kept in memory."""

import numpy as np

from automl_pt import Dataset, Hints, LabeledImages, LazyImages, hookimpl


def draw(index):
    """Draw noise, uint8 [32, 32], with one brighter quarter: its place is the image's class."""
    image = np.random.default_rng(index).integers(0, 160, (32, 32), np.uint8)
    image[16 * (index % 4 // 2) :, 16 * (index % 2) :][:16, :16] += 80
    return image


def load(root):
    """Give `--root COUNT` images, 400 where it is not given."""
    count, classes = int(str(root or 400)), ["top left", "top right", "low left", "low right"]
    return LabeledImages(LazyImages(count, draw), np.arange(count) % 4, classes)


@hookimpl
def register_datasets():
    """Register `synthetic`; a mirrored image would belong to another class."""
    return [Dataset("synthetic", load, Hints(horizontal_flip=False, shift=False, image_size=32), license="CC0-1.0")]
