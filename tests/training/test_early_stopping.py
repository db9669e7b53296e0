from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_pt.training.early_stopping import EarlyStopping

NAN, INF = math.nan, math.inf


def stop(losses: list[float], patience: int, rule: str, min_delta: float = 0.0) -> tuple[int | None, str | None]:
    """Return the epoch after which a run stops, and why."""
    stopping = EarlyStopping(patience, rule, min_delta)  # type: ignore[arg-type]
    for epoch, loss in enumerate(losses, 1):
        reason = stopping.update(loss)
        if reason:
            return epoch, reason
    return None, None


@pytest.mark.parametrize(
    ("losses", "consecutive", "best"),
    [
        ([1.0, 1.1, 1.2, 1.3, 1.4], 4, 4),
        ([1.0, 0.9, 0.9, 0.9, 0.9], 5, 5),
        ([1.0, 1.5, 1.4, 1.3, 1.2], None, 4),
        ([1.0, 1.2, 1.1, 1.3, 1.2, 1.4], None, 4),
        ([1.0, 0.9, 0.8, 0.7, 0.6], None, None),
        ([1.0, 1.0, 1.0, 1.0], 4, 4),  # equal is not lower
        ([0.0, 0.0, 0.0, 0.0], 4, 4),
        ([-1.0, -2.0, -2.0, -2.0, -2.0], 5, 5),
        ([1.0], None, None),  # the first epoch only records
    ],
)
def test_documented_table(losses: list[float], consecutive: int | None, best: int | None) -> None:
    assert stop(losses, 3, "consecutive")[0] == consecutive
    assert stop(losses, 3, "best")[0] == best


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("rule", ["consecutive", "best"])
def test_loss_that_is_not_finite_ends_the_run_at_once(bad: float, rule: str) -> None:
    assert stop([1.0, 0.9, bad, 0.8], 3, rule) == (3, "diverged")
    assert stop([bad], 3, rule) == (1, "diverged")


def test_diverging_does_not_reset_the_counter() -> None:
    stopping = EarlyStopping(patience=3)
    for loss in (1.0, 1.1, 1.2, NAN):
        stopping.update(loss)
    assert stopping.count == 2


def test_the_curve_on_which_other_tools_disagree() -> None:
    curve = [1.0, 0.95, 0.89, 0.84, 0.80, 0.76]
    assert stop(curve, 2, "consecutive") == (None, None)
    assert stop(curve, 2, "best", min_delta=0.1) == (5, "patience")


losses = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


@given(losses, st.integers(1, 5), st.sampled_from(["consecutive", "best"]))
def test_never_stops_before_patience_plus_one_epochs(curve: list[float], patience: int, rule: str) -> None:
    epoch, _ = stop(curve, patience, rule)
    assert epoch is None or epoch > patience


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=30), st.integers(1, 4), st.integers(-1000, 1000))
def test_adding_a_constant_changes_nothing(curve: list[int], patience: int, constant: int) -> None:
    shifted = [float(loss + constant) for loss in curve]
    for rule, delta in (("consecutive", 0.0), ("best", 2.0)):
        assert stop([float(loss) for loss in curve], patience, rule, delta) == stop(shifted, patience, rule, delta)
