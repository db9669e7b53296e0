"""scikit-learn's scanned digits: 1797 real images that come with the package, so that a search needs no network."""

from __future__ import annotations

from pathlib import Path

from automl_pt.dataset import SPLITS, Dataset, Hints, LabeledImages, Split
from automl_pt.hookspecs import hookimpl

#: of the split; part of the dataset, not of a run: its test images are the same for everybody
SEED = 20240229
VAL, TEST = 0.2, 0.2


@hookimpl
def register_datasets() -> list[Dataset]:
    """Register `digits`."""
    return [
        Dataset(
            "digits",
            load,
            # a mirrored digit is another sign, or none; and each fills its 8 px frame, so that a shift cuts it:
            # shifting doubled the validation loss of 6 epochs (docs/recipe.md)
            hints=Hints(horizontal_flip=False, shift=False, image_size=8),
            license="CC-BY-4.0",
            description="1797 scanned handwritten digits, 8 x 8 px, 10 classes; comes with scikit-learn",
        )
    ]


def load(root: Path | None) -> LabeledImages:
    """Return the digits as uint8 [8, 8] with a stratified train/val/test split of 60/20/20 %; `root` is not used."""
    import numpy as np
    from sklearn.datasets import load_digits

    scans = load_digits()
    # 17 grey levels, 0 to 16, spread over 0 to 255
    images = np.round(scans.images * (255 / 16)).astype(np.uint8)
    labels = scans.target.astype(np.int64)
    return LabeledImages(
        images=list(images),
        labels=labels,
        classes=[str(digit) for digit in range(10)],
        splits=_split(len(labels), labels),
        names=[f"digit-{index:04}" for index in range(len(labels))],
    )


def _split(count: int, labels: object) -> list[Split]:
    import numpy as np
    from sklearn.model_selection import train_test_split

    rest, test = train_test_split(np.arange(count), test_size=TEST, stratify=labels, random_state=SEED)
    names = np.asarray(labels)
    train, val = train_test_split(rest, test_size=VAL / (1 - TEST), stratify=names[rest], random_state=SEED)
    splits = np.empty(count, dtype=object)
    for name, indices in zip(SPLITS, (train, val, test), strict=True):
        splits[indices] = name
    return list(splits)
