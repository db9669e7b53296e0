"""What a threshold buys: fewer answers, and more of them right. Those below it are left to a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from automl_pt.model.intervals import Interval, wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: probabilities of the likeliest class that are tried
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
#: the precision that a class's own threshold must reach
PRECISION = 0.95
#: fewer images than this above it, and a class's own threshold would be chance
FEWEST = 10


@dataclass(frozen=True)
class Threshold:
    """Of all images the share `coverage` has an answer at least as likely as `probability`; of these, how many right.

    `accuracy` and its 95 % interval (Wilson's) are None where no image is left.
    """

    probability: float
    images: int
    coverage: float
    accuracy: float | None
    accuracy_interval: Interval | None


@dataclass(frozen=True)
class ClassThreshold:
    """The lowest probability of one class from which on `PRECISION` of the images are of it, and what that reaches.

    `images` have such a probability, at least `FEWEST`. All None where there is none. It was chosen on the images it is
    told of: on new ones it does a little worse.
    """

    name: str
    images: int | None
    probability: float | None
    precision: float | None
    recall: float | None


def thresholds(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[Threshold, ...]:
    """Try each of `LEVELS` on probabilities float32[N, C] and labels int64[N]."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return tuple(_at(level, confidence, right) for level in LEVELS)


def class_thresholds(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str]
) -> tuple[ClassThreshold, ...]:
    """Find each class's own threshold on probabilities float32[N, C] and labels int64[N]."""
    return tuple(_of_class(name, probabilities[:, index], labels == index) for index, name in enumerate(classes))


def _at(level: float, confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> Threshold:
    taken = confidence >= np.float32(level)
    images, hits = int(taken.sum()), int(right[taken].sum())
    figures = (hits / images, wilson(hits, images)) if images else (None, None)
    return Threshold(level, images, images / len(right), *figures)


def _of_class(name: str, probability: NDArray[np.float32], of_class: NDArray[np.bool_]) -> ClassThreshold:
    from sklearn.metrics import precision_recall_curve

    if not of_class.any():
        return ClassThreshold(name, None, None, None, None)
    precision, recall, levels = precision_recall_curve(of_class, probability)
    # the curve's last point has no threshold: it stands for no answers at all
    above = len(probability) - np.searchsorted(np.sort(probability), levels)
    enough = np.flatnonzero((precision[:-1] >= PRECISION) & (above >= FEWEST))
    if not len(enough):
        return ClassThreshold(name, None, None, None, None)
    first = int(enough[0])
    return ClassThreshold(name, int(above[first]), float(levels[first]), float(precision[first]), float(recall[first]))
