"""Which labels are likely to be wrong: confident learning (Northcutt, Jiang and Chuang, 2021, JAIR 70).

A class's threshold is the mean probability that the model gives it on the images labelled so. An image on which another
class reaches its own threshold, and beats the label, counts as that other class's. The thresholds make up for a model
that is sure of some classes and hesitant with others. The probabilities must come from images that the model was not
trained on, as those of the validation split do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Suspect:
    """Image `index`, which is likely to be of class `suggested`; `margin` is by how much that beats its label."""

    index: int
    suggested: int
    margin: float


def label_errors(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> list[Suspect]:
    """Return the images whose labels int64[N] are likely wrong by probabilities float32[N, C], likeliest first."""
    count = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    images = np.bincount(labels, minlength=count)
    sums = np.bincount(labels, weights=own, minlength=count)
    # a class without images has no threshold that anything could reach
    thresholds = np.divide(sums, images, out=np.full(count, np.inf), where=images > 0)
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = reached.argmax(axis=1)
    margins = reached.max(axis=1) - own
    suspects = np.flatnonzero((suggested != labels) & (margins > 0))
    ordered = sorted(suspects.tolist(), key=lambda index: (-margins[index], index))
    return [Suspect(index, int(suggested[index]), float(margins[index])) for index in ordered]
