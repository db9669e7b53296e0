"""How much of the order of the trials two settings explain jointly, beyond what each explains alone.

It is the second-order term of a functional analysis of variance (Hutter, Hoos and Leyton-Brown, 2014), of a random
forest fitted to the ranks of the trials. Its means are taken over the values that were tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_pt.study.records import TrialRecord

#: values of each of two settings, and points of the other settings, over which means are taken
GRID, POINTS = 8, 64
TREES = 64
#: a smaller share of the variance is not shown
SMALLEST = 0.01
#: pairs that are shown, the strongest first
SHOWN = 3


def interactions(
    trials: Sequence[TrialRecord], losses: Mapping[int, float], names: Sequence[str]
) -> list[tuple[str, str, float]]:
    """Return the pairs of settings that interact most, each with its share of the variance of the trials' order."""
    from scipy.stats import rankdata
    from sklearn.ensemble import RandomForestRegressor

    table = np.column_stack([_numbers([trial.params[name] for trial in trials]) for name in names])
    ranks = rankdata([losses.get(trial.number, math.inf) for trial in trials])
    forest = RandomForestRegressor(n_estimators=TREES, random_state=0, n_jobs=1).fit(table, ranks)
    random = np.random.default_rng(0)
    points = np.column_stack([random.choice(column, POINTS) for column in table.T])
    total = float(np.var(forest.predict(np.column_stack([random.choice(column, 16 * POINTS) for column in table.T]))))
    if total <= 0:
        return []
    found = [
        (names[i], names[j], _together(forest, points, table, i, j) / total)
        for i, j in combinations(range(len(names)), 2)
    ]
    return sorted((pair for pair in found if pair[2] >= SMALLEST), key=lambda pair: -pair[2])[:SHOWN]


def _together(forest: Any, points: NDArray[Any], table: NDArray[Any], i: int, j: int) -> float:
    """Return the variance that two settings explain jointly, without that of each alone."""
    first, second = (np.quantile(table[:, k], (np.arange(GRID) + 0.5) / GRID, method="nearest") for k in (i, j))
    cells = np.tile(points, (GRID * GRID, 1))
    cells[:, i] = np.repeat(first, GRID * len(points))
    cells[:, j] = np.repeat(np.tile(second, GRID), len(points))
    means = forest.predict(cells).reshape(GRID, GRID, len(points)).mean(axis=2)
    rest = means - means.mean(axis=0, keepdims=True) - means.mean(axis=1, keepdims=True) + means.mean()
    return float(np.mean(rest**2))


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    """Write a setting as numbers: on a log scale where all are above 0, choices by their place in an order."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = np.array(values, dtype=np.float64)
        return np.log(numbers) if (numbers > 0).all() else numbers
    known = sorted({(type(value).__name__, str(value)) for value in values})
    return np.array([known.index((type(value).__name__, str(value))) for value in values], dtype=np.float64)
