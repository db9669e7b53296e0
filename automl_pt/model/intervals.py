"""Confidence intervals of 95 %; those of shares need only the standard library, so that a model card has them too."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist, fmean, variance
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Interval = tuple[float, float]

_Z = NormalDist().inv_cdf(0.975)
#: number of bootstrap resamplings, and their seed
RESAMPLED = 2_000
_SEED = 0


def wilson(hits: int, count: int) -> Interval:
    """Return Wilson's 95 % interval of a share of `count` > 0 images."""
    share, weight = hits / count, _Z * _Z / count
    middle = share + weight / 2
    half = _Z * sqrt(share * (1 - share) / count + weight / (4 * count))
    return max(0.0, (middle - half) / (1 + weight)), min(1.0, (middle + half) / (1 + weight))


def over_folds(shares: Sequence[float], test_share: float) -> tuple[float, Interval]:
    """Return the mean of k >= 2 folds' shares, and Nadeau and Bengio's corrected 95 % t interval (2003).

    The folds share training images, so the variance of their mean is more than a k-th of their variance: `test_share`,
    the images held out per image trained on, is added to 1 / k.
    """
    from scipy.stats import t

    count, mean = len(shares), fmean(shares)
    half = float(t.ppf(0.975, count - 1)) * sqrt(variance(shares) * (1 / count + test_share))
    return mean, (max(0.0, mean - half), min(1.0, mean + half))


def f1_intervals(
    hits: NDArray[np.int64], predicted: NDArray[np.int64], images: NDArray[np.int64], count: int
) -> list[Interval | None]:
    """Return the 95 % interval of each class's F1 by a percentile bootstrap over the `count` images, seeded.

    `hits`, `predicted` and `images` int64[C] count, per class, its recognised images, the images assigned to it, and
    its images. For one class's F1, resampling images is the same as resampling how many are hits, false positives,
    misses and neither, which is the multinomial drawn here. None if no image is right, or all are, because a bootstrap
    shows no spread then although there is one.
    """
    import numpy as np

    random = np.random.default_rng(_SEED)
    found: list[Interval | None] = []
    for hit, taken, own in zip(hits.tolist(), predicted.tolist(), images.tolist(), strict=True):
        if hit == 0 or hit == taken == own:
            found.append(None)
            continue
        counts = np.array([hit, taken - hit, own - hit, count - taken - own + hit])
        drawn = random.multinomial(count, counts / count, size=RESAMPLED)
        whole = 2 * drawn[:, 0] + drawn[:, 1] + drawn[:, 2]
        # a draw without any image of the class is ignored
        scores = 2 * drawn[whole > 0, 0] / whole[whole > 0]
        low, high = np.percentile(scores, [2.5, 97.5])
        found.append((float(low), float(high)))
    return found
