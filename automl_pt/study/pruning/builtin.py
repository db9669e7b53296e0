"""The built-in pruners: the rungs, Optuna's, and none. Optuna is imported when one of its pruners is made."""

from __future__ import annotations

from functools import partial
from typing import Any

from automl_pt.plugins.hookspecs import hookimpl
from automl_pt.plugins.pruners import Pruner


def _rungs(epochs: int, images: int, *, from_weights: bool = False) -> Any:
    from automl_pt.study.pruning.rungs import Rungs

    return Rungs.over(epochs, images, from_weights=from_weights)


def _optuna(name: str, **options: Any) -> Any:
    import optuna

    return getattr(optuna.pruners, name)(**options)


@hookimpl
def register_pruners() -> list[Pruner]:
    """Register the pruners of this package; one of Optuna's is one line."""
    return [
        Pruner(
            "rungs",
            _rungs,
            "rungs by images and epochs, with paused trials and short trial runs",
            make_from_weights=partial(_rungs, from_weights=True),
        ),
        Pruner("hyperband", lambda epochs, images: _optuna("HyperbandPruner", max_resource=epochs), "Optuna's"),
        Pruner("median", lambda epochs, images: _optuna("MedianPruner"), "Optuna's"),
        Pruner("none", lambda epochs, images: _optuna("NopPruner"), "every trial runs all its epochs"),
        Pruner("percentile", lambda epochs, images: _optuna("PercentilePruner", percentile=25.0), "Optuna's, of 25 %"),
        Pruner("successive-halving", lambda epochs, images: _optuna("SuccessiveHalvingPruner"), "Optuna's"),
    ]
