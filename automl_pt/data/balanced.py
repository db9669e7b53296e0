"""Balanced sampling: the order of an epoch in which every class comes equally often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from automl_pt.core.seeds import derive_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray


def balanced_order(labels: NDArray[np.int64], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw as many images as the split has, int64[N], every class equally often to within one image.

    The images of a class come in a random order, and again from its start where the class has too few. All depends on
    (seed, epoch) and the labels alone.
    """
    count = len(labels)
    # as in `make_plan`, raw words of a counter-based generator, which NumPy keeps as they are
    words = np.random.Philox(key=derive_seed(seed, "balanced", epoch)).random_raw(2 * count).reshape(count, 2)
    order = np.argsort(words[:, 0], kind="stable")
    by_class = order[np.argsort(labels[order], kind="stable")]
    groups = np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)
    share, rest = divmod(count, len(groups))
    # the classes that give one image more are other ones in each epoch
    first = derive_seed(seed, "balanced classes", epoch) % len(groups)
    drawn = [np.resize(group, share + ((place - first) % len(groups) < rest)) for place, group in enumerate(groups)]
    order = np.concatenate(drawn)[np.argsort(words[:, 1], kind="stable")]
    return order.astype(np.int64)
