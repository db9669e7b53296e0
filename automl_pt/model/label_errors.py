"""Finds labels that are likely to be wrong: confident learning (Northcutt, Jiang and Chuang, 2021, JAIR 70).

A class's threshold is the mean probability that the model gives it on the images with its label. An image on which
another class reaches its own threshold, and exceeds the label, is counted as that class's. The thresholds compensate
for a model that is more confident about some classes. The probabilities must come from images that the model was not
trained on, such as the validation split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Suspect:
    """Image `index`, which is likely to be of class `suggested`, whose probability exceeds the label's by `margin`."""

    index: int
    suggested: int
    margin: float


def label_errors(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> list[Suspect]:
    """Return the images whose labels int64[N] are likely wrong by probabilities float32[N, C], most likely first."""
    count = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    images = np.bincount(labels, minlength=count)
    sums = np.bincount(labels, weights=own, minlength=count)
    # a class without images gets an unreachable threshold
    thresholds = np.divide(sums, images, out=np.full(count, np.inf), where=images > 0)
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = reached.argmax(axis=1)
    margins = reached.max(axis=1) - own
    suspects = np.flatnonzero((suggested != labels) & (margins > 0))
    ordered = sorted(suspects.tolist(), key=lambda index: (-margins[index], index))
    return [Suspect(index, int(suggested[index]), float(margins[index])) for index in ordered]
