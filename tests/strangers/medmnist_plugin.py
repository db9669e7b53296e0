"""Blood cells of MedMNIST: 28 px, eight classes; `--download` fetches them into --root."""

import numpy as np
from medmnist import BloodMNIST

from automl_pt import Dataset, Hints, LabeledImages, hookimpl


def load(root):
    parts = {split: BloodMNIST(split, root=root) for split in ("train", "val", "test")}
    images, labels = (np.concatenate([getattr(p, name) for p in parts.values()]) for name in ("imgs", "labels"))
    splits = [split for split, part in parts.items() for _ in part.labels]
    return LabeledImages(images, labels[:, 0], list(parts["train"].info["label"].values()), splits)


@hookimpl
def register_datasets():
    fetch = lambda root: BloodMNIST("train", root=root, download=True)  # noqa: E731
    return [Dataset("medmnist/blood", load, hints=Hints(image_size=28), download=fetch, license="CC-BY-4.0")]
