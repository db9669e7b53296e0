from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_pt.training.schedule import lr_factor, proxy_lr_factor

NAMES = ["constant", "step", "polynomial", "cosine"]


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ("step", [1, 1, 0.1, 0.01]),
        ("polynomial", [1, 0.5625, 0.25, 0.0625]),
        ("cosine", [1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_four_epochs_of_one_step(name: str, factors: list[float]) -> None:
    found = [lr_factor(name, step, steps_per_epoch=1, epochs=4) for step in range(4)]
    assert found == pytest.approx(factors, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_warmup_rises_to_the_full_rate(name: str) -> None:
    found = [lr_factor(name, step, steps_per_epoch=4, epochs=3, warmup_epochs=1) for step in range(5)]
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4] == 1.0


@given(st.sampled_from(NAMES), st.integers(1, 20), st.integers(1, 9), st.data())
def test_every_step_of_every_run_has_a_positive_rate(name: str, steps: int, epochs: int, data: st.DataObject) -> None:
    # the original divided by zero after the last epoch when warm-up took all of them; the settings refuse that
    warmup = data.draw(st.integers(0, epochs - 1))
    factors = [
        lr_factor(name, step, steps_per_epoch=steps, epochs=epochs, warmup_epochs=warmup)
        for step in range(steps * epochs)
    ]
    assert all(0 < factor <= 1 for factor in factors)
    after = factors[warmup * steps :]
    assert after == sorted(after, reverse=True)


def test_in_miniature_the_rate_stays_for_half_of_the_steps_and_then_comes_to_rest() -> None:
    assert [proxy_lr_factor(step, 8) for step in range(8)] == [1, 1, 1, 1, 0.875, 0.625, 0.375, 0.125]
    assert [proxy_lr_factor(step, 8, 0.5) for step in range(8)] == [0.25, 0.5, 0.75, 1, 0.875, 0.625, 0.375, 0.125]
    assert proxy_lr_factor(0, 1) == 1


@given(st.integers(1, 500), st.floats(0, 1), st.data())
def test_in_miniature_every_step_has_a_positive_rate(steps: int, warmup: float, data: st.DataObject) -> None:
    assert 0 < proxy_lr_factor(data.draw(st.integers(0, steps - 1)), steps, warmup) <= 1
