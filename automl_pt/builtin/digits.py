"""scikit-learn's scanned digits: 1797 real images in the installed package, so that a search needs no network."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

from automl_pt.dataset import SPLITS, Dataset, Hints, LabeledImages, Split
from automl_pt.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: where scikit-learn keeps the scans
CSV = "sklearn/datasets/data/digits.csv.gz"


@hookimpl
def register_datasets() -> list[Dataset]:
    """Register `digits`."""
    return [
        Dataset(
            "digits",
            load,
            # no flips, because a mirrored digit is another sign; no shifts, because the digits fill their 8 px frames:
            # shifting doubled the validation loss of 6 epochs (docs/evidence/recipe.md)
            hints=Hints(horizontal_flip=False, shift=False, image_size=8, pretrained=False),
            license="CC-BY-4.0",
            description="1797 scanned handwritten digits, 8 x 8 px, 10 classes; comes with scikit-learn",
        )
    ]


def load(root: Path | None) -> LabeledImages:
    """Return the digits as uint8 [8, 8] with a stratified train/val/test split of 60/20/20 %; `root` is not used."""
    import numpy as np

    scans, labels = _scans()
    # 17 grey levels, 0 to 16, spread over 0 to 255
    images = np.round(scans * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return LabeledImages(
        images=list(images),
        labels=labels.astype(np.int64),
        classes=[str(digit) for digit in range(10)],
        splits=_splits(),
        names=[f"digit-{index:04}" for index in range(len(labels))],
    )


def _scans() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the grey levels [N, 64] and the digits [N], read from scikit-learn's own file.

    Importing scikit-learn would take longer than a first epoch.
    """
    import numpy as np

    file = Path(str(distribution("scikit-learn").locate_file(CSV)))
    rows = np.loadtxt(file, dtype=np.uint8, delimiter=",")
    return rows[:, :-1], rows[:, -1]


def _splits() -> list[Split]:
    """Return each image's split, which is fixed, so that everyone has the same test images.

    Drawn once with scikit-learn's train_test_split and stored, so that no later version can change it.
    """
    kept = Path(__file__).with_name("digits-split.txt").read_text(encoding="ascii")
    return [SPLITS[int(number)] for number in kept if number != "\n"]
