from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_pt.config import SearchConfig
from automl_pt.core.errors import ConfigError
from automl_pt.study.space.sampler import STARTUP, suggest
from automl_pt.study.space.space import Space, make_space

SPACE = Space((1e-4, 1.0), (8, 16, 32, 64), ("resnet18",))


def run(space: Space, trials: int, seed: int = 1) -> dict[int, dict[str, Any]]:
    """Ask for `trials` trials whose loss is the distance of lr from 0.05."""
    params: dict[int, dict[str, Any]] = {}
    for number in range(trials):
        ranking = sorted(params, key=lambda one: abs(math.log(params[one]["lr"] / 0.05)))
        params[number] = suggest(space, params, ranking, seed=seed, number=number)
    return params


def test_the_first_trial_is_the_documented_default() -> None:
    assert suggest(SPACE, {}, [], seed=7, number=0) == {"lr": 0.001, "batch_size": 16}


@pytest.mark.parametrize(
    ("space", "default"),
    [
        (Space((0.01, 1.0), (8, 16), ("a",)), {"lr": 0.01, "batch_size": 16}),
        (Space((1e-5, 1e-4), (64, 128), ("a",)), {"lr": 1e-4, "batch_size": 64}),
        (Space((1e-4, 1.0), (16,), ("a", "b")), {"lr": 0.001, "batch_size": 16, "backbone": "a"}),
    ],
)
def test_where_the_ranges_leave_the_default_out_the_nearest_is_first(space: Space, default: dict[str, Any]) -> None:
    assert space.default() == default


def test_a_restarted_search_asks_for_the_same() -> None:
    params = run(SPACE, 16)
    ranking = sorted(range(12), key=lambda one: abs(math.log(params[one]["lr"] / 0.05)))
    again = suggest(SPACE, {number: params[number] for number in range(12)}, ranking, seed=1, number=12)
    assert again == params[12]
    assert run(SPACE, 16, seed=2) != params


def test_after_the_start_trials_gather_where_it_is_good() -> None:
    params = run(SPACE, 30)

    def distance(numbers: range) -> float:
        return sum(abs(math.log10(params[number]["lr"] / 0.05)) for number in numbers) / len(numbers)

    assert distance(range(STARTUP, 30)) < 0.7 * distance(range(1, STARTUP))


def test_the_start_fills_the_space() -> None:
    params = run(SPACE, STARTUP)
    decades = {math.floor(math.log10(values["lr"])) for values in params.values()}
    assert decades == {-4, -3, -2, -1}
    assert {values["batch_size"] for values in params.values()} == {8, 16, 32, 64}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 14), st.integers(-(2**70), 2**70), st.floats(1e-6, 1.0), st.floats(1.0, 1e3))
def test_every_suggestion_is_in_range(number: int, seed: int, low: float, factor: float) -> None:
    space = Space((low, low * factor), (3, 8, 100), ("a", "b"))
    params = {one: space.default() for one in range(number)}
    found = suggest(space, params, list(params), seed=seed, number=number)
    assert space.lr[0] <= found["lr"] <= space.lr[1]
    assert found["batch_size"] in space.batch_sizes
    assert found["backbone"] in space.backbones


@pytest.mark.parametrize(
    ("images", "epochs", "sizes"),
    [
        (5, 5, (5,)),
        (40, 5, (8,)),
        (319, 5, (8,)),
        (320, 5, (8, 16)),
        (320, 20, (8, 16, 32, 64)),
        (5000, 5, (8, 16, 32, 64, 128)),
        (50_000, 5, (8, 16, 32, 64, 128, 256)),
    ],
)
def test_batch_sizes_are_those_that_leave_a_run_a_hundred_steps(
    images: int, epochs: int, sizes: tuple[int, ...]
) -> None:
    assert make_space(SearchConfig(dataset="x", epochs=epochs), images).batch_sizes == sizes


def test_a_batch_size_above_the_data_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_sizes: at most the number of training images, 50, got 64"):
        make_space(SearchConfig(dataset="x", batch_sizes=(8, 64)), 50)


def test_sizes_that_did_not_fit_in_memory_are_left_out() -> None:
    assert SPACE.without(32).batch_sizes == (8, 16)
    assert SPACE.without(8).batch_sizes == (8,)
