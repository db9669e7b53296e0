"""The contract of a sampler: on several search spaces it chooses points that can be tried, the same ones again."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from automl_pt.config import SearchConfig, make
from automl_pt.plugins.isolation import guarded
from automl_pt.plugins.manager import load_plugins
from automl_pt.plugins.samplers import Sampler
from automl_pt.study.space.space import Space, make_space
from automl_pt.testing.contract import expect, no_network

#: trials of each study, and the seeds of two
TRIALS, SEEDS = 14, (1, -(2**70))
LOOK = "the `suggest` of automl_pt.Sampler; `space.at` makes a point of numbers in [0, 1)"


def spaces() -> Iterator[Space]:
    """Yield spaces: the default, one with several backbones and searched settings, and one with a single batch size."""
    yield make_space(make(SearchConfig, {"dataset": "made-up"}), 5000)
    entries = ("weight_decay=1e-6:1e-2", "label_smoothing=0:0.2", "schedule", "freeze_groups=0:3")
    yield make_space(make(SearchConfig, {"dataset": "made-up", "backbones": ("a", "b"), "search": entries}), 5000)
    yield make_space(make(SearchConfig, {"dataset": "made-up", "lr": (0.1, 0.1), "batch_sizes": (8,)}), 100)


def check_sampler(sampler: Sampler | str) -> list[dict[str, Any]]:
    """Ask a sampler, or the registered one of that name, for the trials of made-up studies; return their points.

    The studies are ranked in an order that changes, some trials are still under way, and no network is needed. Raises
    PluginError for a point outside of the space, one that differs when it is chosen again, and a sampler that
    fails, changes what it is given, or changes the state of the process; UnknownNameError for a name that no plugin
    registered.
    """
    found = load_plugins().named(Sampler, sampler) if isinstance(sampler, str) else sampler
    return [point for space in spaces() for seed in SEEDS for point in _study(found, space, seed)]


def _study(sampler: Sampler, space: Space, seed: int) -> Iterator[dict[str, Any]]:
    params: dict[int, dict[str, Any]] = {0: space.default()}
    for number in range(1, TRIALS):
        # the newest trial is under way, and every third has failed to be ranked
        ranking = [one for one in sorted(params, key=lambda one: (7 * one + seed) % 13) if one % 3 and one < number - 1]
        point = _point(sampler, space, params, ranking, seed, number)
        again = _point(sampler, space, params, ranking, seed, number)
        expect(
            point == again,
            "a sampler chooses the same point when it is asked again, so that a restarted search goes on as before",
            came=f"{sampler.name}: for trial {number} first {point!r}, then {again!r}",
            look="draw random numbers from the seed and the number of the trial alone, and keep nothing between calls",
        )
        params[number] = point
        yield point


def _point(
    sampler: Sampler, space: Space, params: Mapping[int, Mapping[str, Any]], ranking: list[int], seed: int, number: int
) -> dict[str, Any]:
    given = copy.deepcopy(dict(params)), list(ranking)
    try:
        with no_network(), guarded() as changed:
            point = sampler.suggest(space, *given, seed=seed, number=number)
    except (Exception, SystemExit) as error:
        came = f"{sampler.name}: for trial {number} {type(error).__name__}: {error}"
        expect(False, "a sampler chooses a point of every space", came=came, look=LOOK)
        raise
    came = f"{sampler.name}: for trial {number} of the space {space.text()}, {space.fault(point)}"
    expect(space.fault(point) is None, "a sampler chooses points that can be tried", came=came, look=LOOK)
    came = f"{sampler.name}: {', '.join(changed)}"
    expect(not changed, "a sampler changes no state of the process", came=came, look="use a generator of its own")
    is_same = given == (dict(params), ranking)
    expect(is_same, "a sampler does not change what it is given", came=f"{sampler.name}, trial {number}", look=LOOK)
    return dict(point)
