"""The built-in samplers. Their code, and Optuna, are imported when one chooses a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from automl_pt.plugins.hookspecs import hookimpl
from automl_pt.plugins.samplers import Sampler


def _tpe(
    space: Any, params: Mapping[int, Mapping[str, Any]], ranking: Sequence[int], *, seed: int, number: int
) -> Mapping[str, Any]:
    from automl_pt.study.space.sampler import suggest

    return suggest(space, params, ranking, seed=seed, number=number)


def _halton(
    space: Any, params: Mapping[int, Mapping[str, Any]], ranking: Sequence[int], *, seed: int, number: int
) -> Mapping[str, Any]:
    from automl_pt.study.space.sampler import filling

    found: Mapping[str, Any] = space.at(filling(seed, number, space.axes))
    return found


def _random(
    space: Any, params: Mapping[int, Mapping[str, Any]], ranking: Sequence[int], *, seed: int, number: int
) -> Mapping[str, Any]:
    import numpy as np

    from automl_pt.core.seeds import derive_seed

    unit = np.random.default_rng(derive_seed(seed, "random sampler", number)).random(space.axes)
    found: Mapping[str, Any] = space.at(unit.tolist())
    return found


@hookimpl
def register_samplers() -> list[Sampler]:
    """Register the samplers of this package."""
    return [
        Sampler("tpe", _tpe, "a space-filling start, then Optuna's tree-structured Parzen estimator on the ranks"),
        Sampler("halton", _halton, "a shifted Halton sequence, which fills the space evenly"),
        Sampler("random", _random, "independent random points"),
    ]
