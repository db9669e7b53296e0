"""How unlike known images an image is: the distance of its features to those of the nearest validation images.

This is deep nearest neighbours (Sun, Ming, Zhu and Li, "Out-of-Distribution Detection with Deep Nearest Neighbors",
ICML 2022): features of length 1, and the Euclidean distance to the k-th nearest of a bank. It assumes no distribution,
and needs no covariance, which few images do not determine. The bank holds validation images, because the network has
fitted its training images. Its limit is a quantile of the distances of each of its images to the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: which of the nearest images counts, and the share of images like the validation images that exceeds the limit;
#: measured by benchmarks/unsure.py
NEIGHBOUR, OUTLIERS = 5, 0.05
#: images of the bank, which bounds its file at 4 KB an image and the time of a comparison
MAX_BANK = 2_000
#: limit of all numbers of the bank, because an ensemble has the features of all its networks
MAX_NUMBERS = 16_000_000
#: fewest images for which a distance to the k-th nearest means anything
FEWEST = 20


@dataclass(frozen=True, eq=False)
class Novelty:
    """A bank float32[N, D] of features of length 1, and the distance to the k-th nearest above which one is unlike."""

    bank: NDArray[np.float32]
    neighbour: int
    limit: float

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distance of each of float32[N, D] as a share of the limit."""
        found: NDArray[np.float64] = _distances(unit(features), self.bank, self.neighbour) / self.limit
        return found


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features float32[N, D] scaled to length 1; a vector of zeros stays as it is."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (features / np.maximum(lengths, 1e-12)).astype(np.float32)
    return scaled


def fit_novelty(features: NDArray[np.float32]) -> Novelty | None:
    """Return the limit for the features float32[N, D] of validation images; None if these do not determine one.

    They do not if they are fewer than `FEWEST`, not finite, or so equal that the limit would be 0.
    """
    if len(features) < FEWEST or not np.isfinite(features).all():
        return None
    kept = min(len(features), MAX_BANK, max(FEWEST, MAX_NUMBERS // features.shape[1]))
    chosen = np.unique(np.linspace(0, len(features) - 1, kept).round().astype(int))
    # stored in half precision, so the limit is computed from the rounded numbers
    bank = unit(features[chosen]).astype(np.float16).astype(np.float32)
    own = _distances(bank, bank, NEIGHBOUR + 1)  # the nearest is the image itself
    rank = math.ceil((len(own) + 1) * (1 - OUTLIERS) - 1e-9)
    limit = float(np.sort(own)[min(rank, len(own)) - 1])
    return Novelty(bank, NEIGHBOUR, limit) if limit > 1e-6 else None


def _distances(features: NDArray[np.float32], bank: NDArray[np.float32], neighbour: int) -> NDArray[np.float64]:
    """Return the distance of each row to the k-th nearest of the bank, some rows at a time."""
    lengths, found = (bank**2).sum(axis=1), []
    for start in range(0, len(features), 256):
        part = features[start : start + 256]
        squares = (part**2).sum(axis=1)[:, None] + lengths - 2 * part @ bank.T
        nearest = np.partition(squares, neighbour - 1, axis=1)[:, neighbour - 1]
        found.append(np.sqrt(np.maximum(nearest, 0).astype(np.float64)))
    return np.concatenate(found) if found else np.empty(0)
