"""Thresholds on the probability: fewer answers, more of them right, with the rest left to a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from automl_pt.model.intervals import Interval, wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: thresholds on the probability of the likeliest class
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
#: the precision that a class's own threshold must reach
PRECISION = 0.95
#: fewest images above a class's own threshold, because with fewer it would be chance
FEWEST = 10


@dataclass(frozen=True)
class Threshold:
    """Of all images, the share `coverage` has an answer with at least this `probability`, right by `accuracy`.

    `accuracy` and its 95 % interval (Wilson's) are None if no image remains.
    """

    probability: float
    images: int
    coverage: float
    accuracy: float | None
    accuracy_interval: Interval | None


@dataclass(frozen=True)
class ClassThreshold:
    """The lowest probability of one class above which `PRECISION` of the images are of it, with its results.

    `images` have such a probability, at least `FEWEST`. All fields are None if there is none. It is chosen on the same
    images, so it does slightly worse on new ones.
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
    # the curve's last point, without any answers, has no threshold
    above = len(probability) - np.searchsorted(np.sort(probability), levels)
    enough = np.flatnonzero((precision[:-1] >= PRECISION) & (above >= FEWEST))
    if not len(enough):
        return ClassThreshold(name, None, None, None, None)
    first = int(enough[0])
    return ClassThreshold(name, int(above[first]), float(levels[first]), float(precision[first]), float(recall[first]))
