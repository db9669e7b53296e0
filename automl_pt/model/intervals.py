"""Confidence intervals of 95 %; the shares' needs nothing but the standard library, so that a model card has it too."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Interval = tuple[float, float]

_Z = NormalDist().inv_cdf(0.975)
#: resamplings of a bootstrap, and the seed of them
RESAMPLED = 2_000
_SEED = 0


def wilson(hits: int, count: int) -> Interval:
    """Return Wilson's 95 % interval of a share of `count` > 0 images."""
    share, weight = hits / count, _Z * _Z / count
    middle = share + weight / 2
    half = _Z * sqrt(share * (1 - share) / count + weight / (4 * count))
    return max(0.0, (middle - half) / (1 + weight)), min(1.0, (middle + half) / (1 + weight))


def f1_intervals(
    hits: NDArray[np.int64], predicted: NDArray[np.int64], images: NDArray[np.int64], count: int
) -> list[Interval | None]:
    """Return the 95 % interval of each class's F1 by a percentile bootstrap over the `count` images, seeded.

    `hits`, `predicted` and `images` int64[C] count, for each class, the images of it that were recognised, those taken
    for it, and those of it. To draw images again with replacement is, for one class's F1, to draw anew how many are
    hits, taken wrongly, missed, and neither: a multinomial, which is what is drawn. None where nothing is right, or
    everything: images drawn from such a set show no spread, which does not mean that there is none.
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
        # a draw without any image of the class says nothing of it
        scores = 2 * drawn[whole > 0, 0] / whole[whole > 0]
        low, high = np.percentile(scores, [2.5, 97.5])
        found.append((float(low), float(high)))
    return found
